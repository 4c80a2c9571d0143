//! Tests of splitting a segment into what can be mapped and what must be copied.

use vm_memory::Bytes;

use super::*;
use crate::fixtures::{file, memory};

fn segment(guest_addr: u64, file_offset: u64, len: u64) -> FileSegment {
    FileSegment {
        guest_addr,
        file_offset,
        len,
    }
}

#[test]
fn only_whole_pages_are_offered() {
    assert_eq!(
        segment(0x1000, 0x3000, 0x2000).whole_pages(),
        Some(segment(0x1000, 0x3000, 0x2000))
    );
    assert_eq!(
        segment(0x1010, 0x3010, 0x2000).whole_pages(),
        Some(segment(0x2000, 0x4000, 0x1000))
    );
    assert_eq!(segment(0x1000, 0x3200, 0x2000).whole_pages(), None);
    assert_eq!(segment(0x1000, 0x3000, 0xfff).whole_pages(), None);
    assert_eq!(segment(0x1010, 0x3010, 0x100).whole_pages(), None);
}

#[test]
fn unmapped_pages_are_copied() {
    let mem = memory(1);
    let content: Vec<u8> = (0..0x4000usize)
        .map(|i| (i >> 4).to_le_bytes()[0] | 1)
        .collect();
    let file = file(&content);
    let mut offered = Vec::new();
    let mut mapper = |piece: &FilePiece<'_>| {
        offered.push((piece.guest_addr, piece.file_offset, piece.len));
        true
    };
    segment(0x8010, 0x10, 0x3000)
        .place(&mem, &file, &mut mapper)
        .unwrap();
    assert_eq!(offered, [(0x9000, 0x1000, 0x2000)]);
    let mut placed = vec![0; 0x4000];
    mem.read_slice(&mut placed, GuestAddress(0x8000)).unwrap();
    assert_eq!(placed[..0x10], [0; 0x10]);
    assert_eq!(placed[0x10..0x1000], content[0x10..0x1000]);
    assert!(
        placed[0x1000..0x3000].iter().all(|&byte| byte == 0),
        "the mapper's part was written"
    );
    assert_eq!(placed[0x3000..0x3010], content[0x3000..0x3010]);
    assert!(placed[0x3010..].iter().all(|&byte| byte == 0));
}

#[test]
fn a_refused_piece_is_copied() {
    let mem = memory(1);
    let content = vec![7; 0x2000];
    segment(0x8000, 0, 0x2000)
        .place(&mem, &file(&content), &mut |_| false)
        .unwrap();
    let mut placed = vec![0; 0x2000];
    mem.read_slice(&mut placed, GuestAddress(0x8000)).unwrap();
    assert_eq!(placed, content);
}

#[test]
fn a_file_that_shrank_is_an_error() {
    assert!(
        segment(0x8000, 0, 0x2000)
            .place(&memory(1), &file(&[1; 0x100]), &mut |_| false)
            .is_err()
    );
}
