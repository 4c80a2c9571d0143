//! Tests of where an initrd goes, and when it does not fit.

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::fixtures::{bzimage, chain, elf, file, load_all, memory, proptest_config};

#[test]
fn an_initrd_is_at_the_top_of_low_ram() {
    let mem = memory(64);
    let plan = load_all(&mem, &elf(true), Some(b"0707 initrd"), "").unwrap();
    assert_eq!(plan.initrd, Some(((64 << 20) - 0x1000, 11)));
    let mut placed = [0; 11];
    mem.read_slice(&mut placed, GuestAddress((64 << 20) - 0x1000))
        .unwrap();
    assert_eq!(&placed, b"0707 initrd");
}

#[test]
fn an_initrd_is_below_the_limit_of_the_kernel() {
    let mut kernel = bzimage();
    kernel[0x22c..0x230].copy_from_slice(&0x1ff_ffffu32.to_le_bytes());
    let plan = load_all(&memory(64), &kernel, Some(&[1; 5000]), "").unwrap();
    assert_eq!(plan.initrd, Some(((32 << 20) - 0x2000, 5000)));
}

#[test]
fn errors_say_what_to_do() {
    let empty = chain(&load_all(&memory(64), &elf(true), Some(b""), "").unwrap_err());
    assert_eq!(
        empty,
        "cannot load initrd initrd.img: the file is empty: build it again, or leave the initrd out"
    );
    let large = chain(&load_all(&memory(17), &elf(true), Some(&vec![1; 1 << 20]), "").unwrap_err());
    assert!(
        large.contains("it has 1048576 bytes, but only 1036288 are free"),
        "{large}"
    );
}

proptest! {
    #![proptest_config(proptest_config())]

    #[test]
    fn an_initrd_is_always_inside_the_range(from in 0u64..1 << 33, to in 0u64..1 << 33, len in 1usize..20_000) {
        match Initrd::inspect(&file(&vec![0; len]), (from, to)) {
            Ok(initrd) => {
                prop_assert!(initrd.addr >= from && initrd.addr + initrd.len <= to);
                prop_assert_eq!(initrd.addr % PAGE_SIZE, 0);
            }
            Err(_) => prop_assert!(to.saturating_sub(from) < initrd_room(len)),
        }
    }
}

/// A range with this much room surely holds the initrd, wherever page boundaries lie.
fn initrd_room(len: usize) -> u64 {
    (len as u64).next_multiple_of(PAGE_SIZE) + PAGE_SIZE
}
