use super::*;
use nix::sys::signal::Signal;
use std::sync::{Arc, Mutex};

/// Returns a list whose steps record their number when undone; undoing the second one fails.
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
fn steps_are_undone_in_reverse_even_if_one_fails() {
    let recorder = Recorder::default();
    let mut undo = Undo::new(|| Ok(()));
    for n in 1..=3 {
        undo.made("thing", recorder.action(n)).unwrap();
    }
    drop(undo);
    assert_eq!(recorder.noted(), [3, 2, 1]);
}

#[test]
fn kept_steps_are_not_undone() {
    let recorder = Recorder::default();
    let mut undo = Undo::new(|| Ok(()));
    undo.made("thing", recorder.action(1)).unwrap();
    undo.keep();
    assert!(recorder.noted().is_empty());
}

#[test]
fn a_step_is_recorded_before_a_signal_stops_the_start() {
    let recorder = Recorder::default();
    let mut undo = Undo::new(|| Err(Error::Stopped(Signal::SIGINT)));
    assert!(undo.checkpoint().is_err());
    assert!(undo.made("thing", recorder.action(1)).is_err());
    drop(undo);
    assert_eq!(recorder.noted(), [1]);
}
