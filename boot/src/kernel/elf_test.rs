//! Tests of ELF kernels: entry points, segments, notes, and each way a header can be wrong.

use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::fixtures::{
    ELF_BASE, ELF_ENTRY, ELF_PVH_ENTRY, ELF_TEXT, PROGRAM_HEADERS, chain, elf, load_kernel, memory,
    note, patch, program_header, proptest_config,
};

/// Returns the error of loading `elf(false)` after `change`.
fn message(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut image = elf(false);
    change(&mut image);
    chain(&load_kernel(&memory(64), &image).unwrap_err())
}

fn segment_message(segment: &[u8]) -> String {
    message(|image| patch(image, PROGRAM_HEADERS, segment))
}

#[test]
fn without_a_note_the_entry_is_in_long_mode() {
    let plan = load_kernel(&memory(64), &elf(false)).unwrap();
    assert_eq!(
        (plan.protocol, plan.entry.rip),
        (Protocol::Linux64, ELF_ENTRY)
    );
    assert_eq!(plan.kernel_end, ELF_BASE + 0x3000);
}

#[test]
fn with_a_note_the_entry_is_pvh() {
    let plan = load_kernel(&memory(64), &elf(true)).unwrap();
    assert_eq!(
        (plan.protocol, plan.entry.rip),
        (Protocol::Pvh, u64::from(ELF_PVH_ENTRY))
    );
}

#[test]
fn the_segment_is_loaded_and_its_rest_is_zero() {
    let mem = memory(64);
    let image = elf(true);
    load_kernel(&mem, &image).unwrap();
    let mut loaded = vec![0; 0x3000];
    mem.read_slice(&mut loaded, GuestAddress(ELF_BASE)).unwrap();
    assert_eq!(loaded[..0x1800], image[ELF_TEXT..]);
    assert!(loaded[0x1800..].iter().all(|&byte| byte == 0));
}

#[test]
fn errors_name_kernels_of_other_machines() {
    assert!(message(|image| image[4] = 1).contains("32-bit"));
    assert!(message(|image| image[5] = 2).contains("big-endian"));
    assert!(message(|image| image[18] = 183).contains("another machine"));
    assert!(message(|image| image[16] = 1).contains("kernel module"));
}

#[test]
fn invalid_headers_are_refused() {
    assert!(message(|image| image[54] = 32).contains("wrong size"));
    assert!(message(|image| image[56] = 0).contains("too many"));
    assert!(message(|image| patch(image, 56, &[0xff, 0xff])).contains("too many"));
    assert!(message(|image| patch(image, 32, &u64::MAX.to_le_bytes())).contains("beyond 64 bits"));
    assert!(message(|image| patch(image, 24, &0x10u64.to_le_bytes())).contains("entry point"));
}

#[test]
fn segments_must_fit_file_and_memory() {
    let text = ELF_TEXT as u64;
    assert!(
        segment_message(&program_header(1, text, ELF_BASE, 0x1800, 0x1000))
            .contains("more bytes in the file")
    );
    assert!(
        segment_message(&program_header(1, text, ELF_BASE, 0x1801, 0x3000)).contains("truncated")
    );
    assert!(
        segment_message(&program_header(1, u64::MAX, ELF_BASE, 2, 0x3000))
            .contains("beyond 64 bits")
    );
    assert!(segment_message(&program_header(1, text, u64::MAX, 1, 2)).contains("beyond 64 bits"));
    assert!(segment_message(&program_header(1, text, 0x7000, 1, 2)).contains("below 1 MiB"));
    let large = segment_message(&program_header(1, text, ELF_BASE, 1, 64 << 20));
    assert!(large.contains("give the guest at least 80 MiB"), "{large}");
}

#[test]
fn overlapping_segments_are_refused() {
    let text = message(|image| {
        patch(
            image,
            PROGRAM_HEADERS + 56,
            &program_header(1, ELF_TEXT as u64, ELF_BASE + 0x2000, 16, 0x3000),
        );
    });
    assert!(text.contains("overlap"), "{text}");
}

#[test]
fn notes_are_found_among_others() {
    let wanted = note(NOTE_OWNER, NOTE_PHYS32_ENTRY, &0x1234u32.to_le_bytes());
    let notes = [
        note(b"Linux\0", 1, b"abc"),
        note(NOTE_OWNER, 2, b"x"),
        wanted,
    ]
    .concat();
    assert_eq!(find_pvh_entry(&notes).unwrap(), Some(0x1234));
    assert_eq!(find_pvh_entry(&notes[..40]).unwrap(), None);
    assert!(find_pvh_entry(&note(NOTE_OWNER, NOTE_PHYS32_ENTRY, b"abc")).is_err());
}

proptest! {
    #![proptest_config(proptest_config())]

    #[test]
    fn arbitrary_notes_never_panic(notes in proptest::collection::vec(any::<u8>(), 0..256)) {
        let _ = find_pvh_entry(&notes);
    }
}
