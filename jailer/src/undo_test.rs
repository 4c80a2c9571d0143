use super::*;
use nix::sys::signal::Signal;
use std::sync::{Arc, Mutex};

fn recorder() -> (
    Arc<Mutex<Vec<u32>>>,
    impl Fn(u32) -> Box<dyn FnOnce() -> io::Result<()> + Send>,
) {
    let log = Arc::new(Mutex::new(Vec::new()));
    let shared = Arc::clone(&log);
    (log, move |n| {
        let log = Arc::clone(&shared);
        Box::new(move || {
            log.lock().unwrap().push(n);
            if n == 2 {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            Ok(())
        })
    })
}

#[test]
fn the_latest_is_taken_back_first_and_a_failure_does_not_end_it() {
    let (log, action) = recorder();
    let mut undo = Undo::new(|| Ok(()));
    for n in 1..=3 {
        undo.made("thing", action(n)).unwrap();
    }
    drop(undo);
    assert_eq!(*log.lock().unwrap(), [3, 2, 1]);
}

#[test]
fn what_is_kept_stays() {
    let (log, action) = recorder();
    let mut undo = Undo::new(|| Ok(()));
    undo.made("thing", action(1)).unwrap();
    undo.keep();
    assert!(log.lock().unwrap().is_empty());
}

#[test]
fn a_stop_comes_after_the_record() {
    let (log, action) = recorder();
    let mut undo = Undo::new(|| Err(Error::Stopped(Signal::SIGINT)));
    assert!(undo.checkpoint().is_err());
    assert!(undo.made("thing", action(1)).is_err());
    drop(undo);
    assert_eq!(*log.lock().unwrap(), [1]);
}
