use super::*;
use nix::sys::signal::Signal;
use std::sync::{Arc, Mutex};

/// Actions that note their number, the second failing.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<u32>>>);

impl Recorder {
    fn action(&self, number: u32) -> impl FnOnce() -> io::Result<()> + Send + use<> {
        let log = Arc::clone(&self.0);
        move || {
            log.lock().unwrap().push(number);
            match number {
                2 => Err(io::ErrorKind::PermissionDenied.into()),
                _ => Ok(()),
            }
        }
    }

    fn noted(&self) -> Vec<u32> {
        self.0.lock().unwrap().clone()
    }
}

#[test]
fn the_latest_is_taken_back_first_and_a_failure_does_not_end_it() {
    let recorder = Recorder::default();
    let mut undo = Undo::new(|| Ok(()));
    for n in 1..=3 {
        undo.made("thing", recorder.action(n)).unwrap();
    }
    drop(undo);
    assert_eq!(recorder.noted(), [3, 2, 1]);
}

#[test]
fn what_is_kept_stays() {
    let recorder = Recorder::default();
    let mut undo = Undo::new(|| Ok(()));
    undo.made("thing", recorder.action(1)).unwrap();
    undo.keep();
    assert!(recorder.noted().is_empty());
}

#[test]
fn a_stop_comes_after_the_record() {
    let recorder = Recorder::default();
    let mut undo = Undo::new(|| Err(Error::Stopped(Signal::SIGINT)));
    assert!(undo.checkpoint().is_err());
    assert!(undo.made("thing", recorder.action(1)).is_err());
    drop(undo);
    assert_eq!(recorder.noted(), [1]);
}
