use super::*;
use crate::machine::memory::view::view_test::memory;
use vm_memory::{Bytes as _, GuestAddress};

fn shared(phase: GuestPhase) -> Shared {
    Shared {
        phase: Mutex::new(phase),
        changed: Condvar::new(),
    }
}

#[test]
fn touched_pages_are_recorded_in_the_order_they_were_seen() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.workingset");
    let memory = memory();
    let view = View::new(&memory);
    let id = "0123456789abcdef";
    let mut recorder = Recorder::new(&path, id, Duration::from_millis(1), &view).unwrap();
    let touch = |page: u64| memory.write_obj(1_u8, GuestAddress(page * PAGE)).unwrap();
    touch(5);
    touch(6);
    recorder.record_new(&view).unwrap();
    touch(2);
    recorder.record_new(&view).unwrap();
    // A page of the second region, after a hole in the guest's addresses.
    touch(256);
    recorder.run(&view, &shared(GuestPhase::Over));
    let runs = working_set::read(&path, id, 12).unwrap().unwrap();
    let pages: Vec<_> = runs.iter().map(|run| (run.start, run.pages)).collect();
    assert_eq!(pages, [(5, 2), (2, 1), (8, 1)]);
    assert!(runs.iter().all(|run| run.written));
}

#[test]
fn two_processes_cannot_record_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.workingset");
    let memory = memory();
    let view = View::new(&memory);
    let first = Recorder::new(&path, "", Duration::ZERO, &view).unwrap();
    assert!(Recorder::new(&path, "", Duration::ZERO, &view).is_err());
    drop(first);
    assert!(!path.exists());
}

#[test]
fn reading_ahead_does_not_change_memory() {
    let memory = memory();
    memory.write_obj(7_u8, GuestAddress(3 * PAGE)).unwrap();
    let view = View::new(&memory);
    let runs = [(2, 4, true), (7, 3, false)].map(|(start, pages, written)| Touched {
        start,
        pages,
        written,
    });
    read_ahead(&view, &runs, &shared(GuestPhase::Running));
    let resident: Vec<bool> = view
        .pieces(u64::MAX)
        .iter()
        .flat_map(|piece| piece.resident().unwrap())
        .collect();
    let expected = [0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 0, 0].map(|page| page == 1);
    assert_eq!(resident, expected);
    let value: u8 = memory.read_obj(GuestAddress(3 * PAGE)).unwrap();
    assert_eq!(value, 7);
}
