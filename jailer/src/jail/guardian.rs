//! Becoming the VMM. The last steps take the right to take anything back away from the thread that
//! makes them, so another thread keeps it until the VMM runs: execve(2) ends that thread with
//! everything else of the jailer, and if it fails instead, that thread takes back what was made.

use crate::error::Error;
use crate::undo::Undo;
use std::convert::Infallible;
use std::sync::mpsc;

/// Runs `last_steps`, which end in execve, under the guard of a thread that takes back `undo` if
/// they fail.
pub fn run_last(
    undo: Undo,
    last_steps: impl FnOnce() -> Result<Infallible, Error>,
) -> Result<Infallible, Error> {
    let (failed, wait) = mpsc::channel::<()>();
    let guardian = std::thread::Builder::new().name("guardian".into());
    let guardian = guardian.spawn(move || {
        // Either end of the wait means that the last steps failed.
        let _ = wait.recv();
        drop(undo);
    });
    let guardian = guardian.map_err(Error::step("start a thread"))?;
    let outcome = last_steps();
    drop(failed);
    let _ = guardian.join();
    outcome
}
