use super::super::ranges::data_in;
use super::*;
use std::io::{Seek as _, SeekFrom, Write as _};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes as _, GuestAddress, GuestRegionMmap};

/// Returns a memory of two regions with a hole between them.
pub(crate) fn memory() -> GuestMemory {
    let parts = [(0, 8 << 12), (1 << 20, 4 << 12)].map(|(start, len)| {
        let region = MmapRegionBuilder::new_with_bitmap(len, None)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
            .build();
        GuestRegionMmap::new(region.unwrap(), GuestAddress(start)).unwrap()
    });
    GuestMemory::from_regions(parts.into()).unwrap()
}

#[test]
fn regions_follow_one_another() {
    let memory = memory();
    memory
        .write_slice(&[7; 4096], GuestAddress((1 << 20) + (1 << 12)))
        .unwrap();
    let view = View::new(&memory);
    assert_eq!(view.bytes(), 12 << 12);
    let pieces = view.pieces(3 << 12);
    let cut: Vec<_> = pieces
        .iter()
        .map(|piece| (piece.offset >> 12, piece.len >> 12))
        .collect();
    assert_eq!(cut, [(0, 3), (3, 3), (6, 2), (8, 3), (11, 1)]);
    let full: Vec<_> = (0..12)
        .filter(|page| !view.page(*page).unwrap().is_zero())
        .collect();
    assert_eq!(full, [9]);
    assert_eq!(view.page(9).unwrap().crc(), crc32fast::hash(&[7; 4096]));
    let range = |first, pages| -> Vec<_> {
        let all = view.range(first, pages);
        all.iter().map(|p| (p.offset >> 12, p.len >> 12)).collect()
    };
    assert_eq!(range(6, 4), [(6, 2), (8, 2)]);
    assert_eq!(range(8, 1), [(8, 1)]);
    assert_eq!(range(11, u64::MAX), [(11, 1)]);
    assert_eq!(range(12, 1), []);
    assert!(pieces[0].advise(libc::MADV_DONTNEED).is_err());
    assert!(view.page(12).is_none());
    assert!(view.page(u64::MAX).is_none());
    assert!(pieces[0].cut(2 << 12, 2 << 12).is_none());
    assert!(pieces[0].cut(u64::MAX, 2).is_none());
}

#[test]
fn an_untouched_page_is_not_resident() {
    let memory = memory();
    memory.write_slice(&[1], GuestAddress(2 << 12)).unwrap();
    let view = View::new(&memory);
    let resident = view.pieces(8 << 12)[0].resident().unwrap();
    assert!(resident[2]);
    assert!(!resident[7]);
}

#[test]
fn data_ranges_exclude_holes() {
    let mut file = tempfile::tempfile().unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(data_in(&file, 1 << 20).unwrap(), []);
    file.seek(SeekFrom::Start(128 << 10)).unwrap();
    file.write_all(&[1; 4096]).unwrap();
    let found = data_in(&file, 1 << 20).unwrap();
    assert!(
        found
            .iter()
            .any(|(at, len)| (*at..at + len).contains(&(128 << 10))),
        "{found:?}"
    );
    assert!(found.iter().all(|(at, len)| at + len <= 1 << 20));
}
