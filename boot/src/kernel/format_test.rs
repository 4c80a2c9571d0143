//! Tests of telling kernels from what is passed by mistake, and of files hostile to any loader.

use proptest::prelude::*;

use crate::fixtures::{bzimage, chain, elf, load_kernel, memory, proptest_config};
use crate::{BootError, KernelError};

fn message(kernel: &[u8]) -> String {
    chain(&load_kernel(&memory(64), kernel).unwrap_err())
}

#[test]
fn a_message_names_file_cause_and_remedy() {
    assert_eq!(
        message(b""),
        "cannot boot kernel kernel.bin: the file is empty: pass an uncompressed ELF vmlinux or a bzImage"
    );
    assert_eq!(
        message(b"[boot]\nkernel = vmlinux\n"),
        "cannot boot kernel kernel.bin: not a Linux kernel: it is a text file; \
         pass an uncompressed ELF vmlinux or a bzImage"
    );
}

#[test]
fn errors_name_other_kinds_of_files() {
    for (head, expected) in [
        (&b"\x1f\x8b\x08\0"[..], "gzip-compressed"),
        (b"\xfd7zXZ\0\0", "xz-compressed"),
        (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
        (b"\x02\x21\x4c\x18", "lz4-compressed"),
        (b"070701000", "swapped"),
        (b"QFI\xfb", "qcow2"),
        (b"MZ\0\0", "EFI program"),
        (b"#!/bin/sh\n", "script"),
        (b"\0\x01\x02", "neither an ELF file nor a bzImage"),
    ] {
        let text = message(head);
        assert!(text.contains(expected), "{text}");
    }
    let mut arm64 = vec![0u8; 0x400];
    arm64[0x38..0x3c].copy_from_slice(b"ARM\x64");
    assert!(message(&arm64).contains("another architecture"));
}

#[test]
fn a_directory_is_not_a_kernel() {
    let directory = std::fs::File::open(std::env::temp_dir()).unwrap();
    let error = super::inspect(&directory, 64 << 20).unwrap_err();
    assert_eq!(chain(&error), "cannot read the file: not a regular file");
}

#[test]
fn every_truncation_is_an_error() {
    let mem = memory(64);
    for image in [elf(true), elf(false), bzimage()] {
        assert!(load_kernel(&mem, &image).is_ok());
        for len in (0..image.len()).step_by(37).chain([image.len() - 1]) {
            let error = load_kernel(&mem, &image[..len]).unwrap_err();
            assert!(
                matches!(error, BootError::Kernel { .. }),
                "{len}: {error:?}"
            );
        }
    }
}

#[test]
fn the_error_for_a_small_guest_names_the_memory_that_the_kernel_needs() {
    let error = load_kernel(&memory(16), &bzimage()).unwrap_err();
    let BootError::Kernel {
        source: KernelError::OutsideMemory { end, .. },
        ..
    } = &error
    else {
        panic!("{error:?}");
    };
    assert_eq!(*end, 20 << 20);
    assert!(chain(&error).contains("give the guest at least 20 MiB"));
}

/// A kernel with some bytes changed and perhaps cut short.
fn broken(image: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    // Most changes go where the headers are.
    let change = (
        prop_oneof![8 => 0..0x300usize, 1 => 0x800..0x900usize],
        any::<[u8; 8]>(),
        1..=8usize,
    );
    (
        proptest::collection::vec(change, 1..6),
        proptest::option::weighted(0.2, 0..image.len()),
    )
        .prop_map(move |(changes, cut)| {
            let mut image = image.clone();
            for (offset, bytes, len) in changes {
                image[offset..offset + len].copy_from_slice(&bytes[..len]);
            }
            image.truncate(cut.unwrap_or(image.len()));
            image
        })
}

/// Loading may fail but not panic, and a plan it gives keeps to memory.
fn check(image: &[u8]) {
    const MIB: u64 = 24;
    if let Ok(plan) = load_kernel(&memory(MIB), image) {
        assert!(plan.kernel_end <= MIB << 20);
        assert!(plan.entry.rip < MIB << 20);
    }
}

proptest! {
    #![proptest_config(proptest_config())]

    #[test]
    fn arbitrary_bytes_never_panic(image in proptest::collection::vec(any::<u8>(), 0..4096)) {
        check(&image);
    }

    #[test]
    fn arbitrary_bytes_behind_a_magic_never_panic(
        mut image in proptest::collection::vec(any::<u8>(), 0x400..4096),
        is_elf: bool,
    ) {
        if is_elf {
            image[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        } else {
            image[0x202..0x206].copy_from_slice(b"HdrS");
        }
        check(&image);
    }

    #[test]
    fn broken_elf_never_panics(image in broken(elf(true))) {
        check(&image);
    }

    #[test]
    fn broken_bzimage_never_panics(image in broken(bzimage())) {
        check(&image);
    }
}
