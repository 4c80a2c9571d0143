//! The terminal in raw mode, restored on every way out that a process can see.
//!
//! Handlers of fatal signals restore the terminal. The process then dies of the signal, so that its parent sees the true
//! reason.

use super::signal_handler::handle;
use nix::sys::signal::{Signal, raise};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal as _, Stdin};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;

/// The terminal's settings before raw mode. Set once, read by signal handlers.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();

/// Signals that end a process by default and have no exit status of their own ([`super::signals`]). SIGKILL cannot be
/// caught, and Rust ignores SIGPIPE.
const FATAL: [Signal; 13] = [
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTRAP,
    Signal::SIGABRT,
    Signal::SIGFPE,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGIO,
    Signal::SIGPWR,
];

/// A guard that keeps the terminal in raw mode.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Sets the terminal of `stdin` to raw mode. Returns `None` if `stdin` is not a terminal, or if this process is a
    /// background job, which the kernel would stop.
    ///
    /// # Errors
    /// The terminal refused.
    pub fn enter(stdin: &Stdin) -> io::Result<Option<Self>> {
        if !stdin.is_terminal() || !in_foreground(stdin) {
            return Ok(None);
        }
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        if BEFORE.set(before.clone().into()).is_err() {
            // This process set raw mode before: the handlers know the first settings.
            tcsetattr(stdin, SetArg::TCSANOW, &raw)?;
            return Ok(Some(Self { before }));
        }
        for signal in FATAL {
            handle(signal, restore_and_die)?;
        }
        tcsetattr(stdin, SetArg::TCSANOW, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // Input typed ahead stays for the shell. The call fails only if the terminal is gone.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

fn in_foreground(stdin: &Stdin) -> bool {
    // The call fails for a terminal of another session, which stops no background job.
    nix::unistd::tcgetpgrp(stdin).map_or(true, |group| group == nix::unistd::getpgrp())
}

/// Restores the terminal if it is in raw mode. Async-signal-safe.
#[expect(
    unsafe_code,
    reason = "the safe wrapper of tcsetattr is not async-signal-safe by contract"
)]
pub(crate) fn restore() {
    if let Some(before) = BEFORE.get() {
        // SAFETY: `before` is static, and the call only reads it.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, before) };
    }
}

extern "C" fn restore_and_die(signal: libc::c_int) {
    restore();
    if let Ok(signal) = Signal::try_from(signal) {
        // The signal has its default effect again.
        let _ = raise(signal);
    }
}
