use super::*;
use crate::machine::memory::view::view_test::memory;
use std::os::unix::fs::FileExt as _;
use vm_memory::{Bytes as _, GuestAddress};

fn write(view: &View, selection: Selection) -> (File, Vec<Run>) {
    let file = tempfile::tempfile().unwrap();
    let writer = Writer::new(view, &file, selection).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| writer.work());
        writer.work();
    });
    let runs = writer.finish().unwrap();
    assert_eq!(file.metadata().unwrap().len(), view.bytes());
    (file, runs)
}

fn page(file: &File, index: u64) -> [u8; 4096] {
    let mut page = [0; 4096];
    file.read_exact_at(&mut page, index << 12).unwrap();
    page
}

fn filled() -> View {
    let memory = memory();
    for (page, byte) in [(1_u64, 3), (2, 4), (256, 5)] {
        memory
            .write_slice(&[byte; 4096], GuestAddress(page << 12))
            .unwrap();
    }
    View::new(&memory)
}

fn places(runs: &[Run]) -> Vec<(u32, u32)> {
    runs.iter().map(|run| (run.start, run.pages)).collect()
}

#[test]
fn a_full_snapshot_has_no_zero_pages() {
    let view = filled();
    for (elsewhere, swap) in [
        (vec![], false),
        (vec![(0, 12 << 12)], false),
        (vec![], true),
    ] {
        let (file, runs) = write(&view, Selection::NotZero { elsewhere, swap });
        assert_eq!(places(&runs), [(1, 2), (8, 1)]);
        assert_eq!(page(&file, 2), [4; 4096]);
        assert_eq!(page(&file, 8), [5; 4096]);
        let mut bytes = vec![3; 4096];
        bytes.extend([4; 4096]);
        assert_eq!(runs[0].crc, crc32fast::hash(&bytes));
    }
}

#[test]
fn selected_pages_are_written_whatever_they_hold() {
    let mut pages = PageSet::empty(12);
    [0, 2, 11].into_iter().for_each(|page| pages.insert(page));
    let (file, runs) = write(&filled(), Selection::These(pages));
    assert_eq!(places(&runs), [(0, 1), (2, 1), (11, 1)]);
    assert_eq!(page(&file, 1), [0; 4096], "was not chosen");
    assert_eq!(page(&file, 2), [4; 4096]);
}

#[test]
fn pages_that_differ_from_a_file_are_written() {
    let view = filled();
    let all = Selection::NotZero {
        elsewhere: vec![],
        swap: true,
    };
    let (base, _) = write(&view, all);
    view.memory()
        .write_slice(&[0; 4096], GuestAddress(1 << 12))
        .unwrap();
    view.memory()
        .write_slice(&[9], GuestAddress(259 << 12))
        .unwrap();
    let (_, runs) = write(&view, Selection::DifferFrom(base));
    assert_eq!(places(&runs), [(1, 1), (11, 1)]);
}

#[test]
fn a_write_error_is_returned() {
    let view = filled();
    let file = File::open("/dev/null").unwrap();
    let selection = Selection::These(PageSet::empty(12));
    assert!(Writer::new(&view, &file, selection).is_err());
}
