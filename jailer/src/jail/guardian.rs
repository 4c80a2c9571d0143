//! Becomes the monitor in this process. The last steps drop the privileges of the thread that runs them, so another
//! thread keeps its own until the monitor runs. execve(2) ends that thread with the jailer; if execve fails, that
//! thread undoes the start.

use crate::error::Error;
use crate::undo::Undo;
use std::convert::Infallible;
use std::sync::mpsc;

/// Runs `last_steps`, which end in execve. If they fail, a thread that still has its privileges undoes `undo`.
pub fn run_last(
    undo: Undo,
    last_steps: impl FnOnce() -> Result<Infallible, Error>,
) -> Result<Infallible, Error> {
    let (failed, wait) = mpsc::channel::<()>();
    let guardian = std::thread::Builder::new().name("guardian".into());
    let guardian = guardian.spawn(move || {
        // The wait ends only if the last steps have failed.
        let _ = wait.recv();
        drop(undo);
    });
    let guardian = guardian.map_err(Error::step("start a thread"))?;
    let outcome = last_steps();
    drop(failed);
    let _ = guardian.join();
    outcome
}
