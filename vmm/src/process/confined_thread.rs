//! Threads that apply their seccomp filter before they do anything else.

use std::io;
use std::sync::mpsc;
use std::thread::JoinHandle;

/// The pending result of a thread's confinement.
#[derive(Debug)]
pub struct Confinement(mpsc::Receiver<io::Result<()>>);

impl Confinement {
    /// Waits until the thread is confined.
    ///
    /// # Errors
    /// The kernel refused the thread's filter: the guest must not run.
    pub fn wait(self) -> io::Result<()> {
        let result = self.0.recv();
        result.unwrap_or_else(|gone| Err(io::Error::other(gone)))
    }
}

/// Starts the thread `name`. It calls `confine`, and then `body` with whether it is confined.
///
/// # Errors
/// The host has no more threads.
pub fn spawn(
    name: &str,
    confine: impl FnOnce() -> io::Result<()> + Send + 'static,
    body: impl FnOnce(bool) + Send + 'static,
) -> io::Result<(JoinHandle<()>, Confinement)> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::Builder::new().name(name.to_owned());
    let thread = thread.spawn(move || {
        let result = confine();
        let is_confined = result.is_ok();
        // The receiver is gone if the start failed elsewhere.
        let _ = sender.send(result);
        drop(sender);
        body(is_confined);
    })?;
    Ok((thread, Confinement(receiver)))
}
