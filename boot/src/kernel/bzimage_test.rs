//! Tests of bzImages against the boot protocol's text.

use vm_memory::{Bytes, GuestAddress};

use crate::fixtures::{BZ_PAYLOAD, BZ_SETUP, bzimage, chain, load_kernel, memory, patch};
use crate::{BootError, BootPlan, Protocol, layout};

fn load(change: impl FnOnce(&mut Vec<u8>)) -> Result<BootPlan, BootError> {
    let mut image = bzimage();
    change(&mut image);
    load_kernel(&memory(64), &image)
}

fn message(change: impl FnOnce(&mut Vec<u8>)) -> String {
    chain(&load(change).unwrap_err())
}

#[test]
fn a_relocatable_kernel_goes_to_1_mib_and_runs_where_it_prefers() {
    let mem = memory(64);
    let image = bzimage();
    let plan = load_kernel(&mem, &image).unwrap();
    assert_eq!(
        (plan.protocol, plan.entry.rip),
        (Protocol::Linux64, 0x10_0200)
    );
    assert_eq!(plan.kernel_end, 0x140_0000);
    let mut loaded = vec![0; BZ_PAYLOAD];
    mem.read_slice(&mut loaded, GuestAddress(layout::HIGH_RAM_START))
        .unwrap();
    assert_eq!(loaded, image[BZ_SETUP..]);
}

#[test]
fn a_fixed_kernel_goes_where_it_prefers() {
    let plan = load(|image| image[0x234] = 0).unwrap();
    assert_eq!(plan.entry.rip, 0x100_0200);
}

#[test]
fn the_zero_page_has_the_kernels_header_and_nothing_of_its_code() {
    let mem = memory(64);
    let mut image = bzimage();
    patch(&mut image, 0x26c, &[0x90; 16]); // after the header: code
    load_kernel(&mem, &image).unwrap();
    let mut page = vec![0; 4096];
    mem.read_slice(&mut page, GuestAddress(layout::ZERO_PAGE))
        .unwrap();
    assert_eq!(page[0x1fe..0x208], image[0x1fe..0x208]);
    assert_eq!(page[0x210], 0xff);
    assert_eq!(page[0x214..0x218], 0x10_0000u32.to_le_bytes());
    assert_eq!(page[0x26c..0x27c], [0; 16]);
}

#[test]
fn errors_name_kernels_that_this_machine_cannot_start() {
    assert!(message(|image| patch(image, 0x206, &[5, 2])).contains("older than 2.06"));
    assert!(message(|image| patch(image, 0x206, &[11, 2])).contains("no 64-bit entry point"));
    assert!(message(|image| image[0x236] = 0).contains("no 64-bit entry point"));
    assert!(message(|image| image[0x211] = 0).contains("zImage"));
    assert!(message(|image| image[0x1fe] = 0).contains("boot flag"));
}

#[test]
fn addresses_outside_the_possible_range_are_refused() {
    assert!(
        message(|image| patch(image, 0x260, &u32::MAX.to_le_bytes()))
            .contains("give the guest at least")
    );
    assert!(
        message(|image| patch(image, 0x258, &u64::MAX.to_le_bytes())).contains("beyond 64 bits")
    );
    let low = message(|image| {
        image[0x234] = 0;
        patch(image, 0x258, &0x8000u64.to_le_bytes());
    });
    assert!(low.contains("below 1 MiB"), "{low}");
}

#[test]
fn a_signature_after_the_kernel_is_left_out() {
    let plan = load(|image| image.extend([0xcc; 700])).unwrap();
    assert_eq!(plan.protocol, Protocol::Linux64);
    let longer = message(|image| patch(image, 0x1f4, &0x1_0000u32.to_le_bytes()));
    assert!(
        longer.contains("truncated: the compressed kernel ends at byte 1052672"),
        "{longer}"
    );
}
