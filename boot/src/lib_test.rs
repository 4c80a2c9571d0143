//! Tests of the whole: what is written where, and that a refused kernel leaves memory alone.

use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::fixtures::{bzimage, chain, elf, load_all, load_kernel, memory, memory_at};

#[test]
fn a_guest_without_low_memory_is_refused() {
    let mem = memory_at(&[(0, 0x8_0000)]);
    let error = load_kernel(&mem, &elf(true)).unwrap_err();
    assert_eq!(
        chain(&error),
        "guest memory is too small: 524288 bytes of RAM start at address 0, at least 1048576 are needed"
    );
}

#[test]
fn a_refused_kernel_leaves_memory_unchanged() {
    let mem = memory(24);
    assert!(load_all(&mem, &bzimage(), Some(b""), "").is_err());
    assert!(load_all(&mem, &bzimage(), None, "a\nb").is_err());
    assert!(load_all(&mem, &bzimage(), Some(&vec![1; 8 << 20]), "").is_err());
    let mut all = vec![0; 24 << 20];
    mem.read_slice(&mut all, GuestAddress(0)).unwrap();
    assert!(all.iter().all(|&byte| byte == 0));
}

#[test]
fn memory_beyond_the_mmio_gap_is_usable() {
    let plan = load_all(&memory(5 << 10), &elf(true), Some(&[1; 10]), "").unwrap();
    assert_eq!(plan.initrd, Some((layout::MMIO_GAP_START - 0x1000, 10)));
}

#[test]
fn all_tables_are_written() {
    let mem = memory(24);
    load_kernel(&mem, &bzimage()).unwrap();
    let mut signature = [0; 8];
    mem.read_slice(&mut signature, GuestAddress(layout::ACPI_START))
        .unwrap();
    assert_eq!(&signature, b"RSD PTR ");
}
