//! The terminal in raw mode, put back on every way out that a process can see.
//!
//! The signals that end a process are caught only to put the terminal back; then the process
//! dies of the signal, so that its parent sees the truth.

use super::signal_handler::handle;
use nix::sys::signal::{Signal, raise};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use std::io::{self, IsTerminal as _, Stdin};
use std::os::fd::AsFd as _;
use std::sync::OnceLock;

/// What the terminal was before: set once, read by the signal handler.
static BEFORE: OnceLock<libc::termios> = OnceLock::new();

/// Signals whose default is to end the process, and which have no status of their own
/// ([`super::signals`]). SIGKILL cannot be seen, SIGPIPE is ignored in Rust.
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

/// Raw mode for as long as this lives.
#[derive(Debug)]
pub struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// Makes the terminal of `stdin` raw. `None` if it is no terminal, or not this process's to
    /// change: a background job that changed it would be stopped.
    ///
    /// # Errors
    /// What the terminal says.
    pub fn enter(stdin: &Stdin) -> io::Result<Option<Self>> {
        if !stdin.is_terminal() || !in_foreground(stdin) {
            return Ok(None);
        }
        let before = tcgetattr(stdin)?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        if BEFORE.set(before.clone().into()).is_err() {
            // Entered before in this process: the handlers know the first state.
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
        // Input typed ahead stays for the shell. If the terminal is gone there is nothing to put back.
        let _ = tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, &self.before);
    }
}

fn in_foreground(stdin: &Stdin) -> bool {
    // It fails for a terminal that is not the session's own, which stops nobody.
    nix::unistd::tcgetpgrp(stdin).map_or(true, |group| group == nix::unistd::getpgrp())
}

/// Puts the terminal back, if it was raw. Async-signal-safe.
#[expect(
    unsafe_code,
    reason = "the safe wrapper of tcsetattr is not async-signal-safe by contract"
)]
pub(crate) fn restore() {
    if let Some(before) = BEFORE.get() {
        // SAFETY: `before` is a termios that lives for ever, and the call only reads it.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, before) };
    }
}

extern "C" fn restore_and_die(signal: libc::c_int) {
    restore();
    if let Ok(signal) = Signal::try_from(signal) {
        // Its disposition is the default again.
        let _ = raise(signal);
    }
}
