//! Signals that end the process with a status of its own, as the compatible monitor does: who started it
//! sees which, even where a wrapper hides signals.

use crate::terminal;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io;

/// Which signal ends with which status.
const STATUSES: [(Signal, u8, &str); 6] = [
    (Signal::SIGBUS, 149, "SIGBUS"),
    (Signal::SIGSEGV, 150, "SIGSEGV"),
    (Signal::SIGXFSZ, 151, "SIGXFSZ"),
    (Signal::SIGXCPU, 154, "SIGXCPU"),
    (Signal::SIGHUP, 156, "SIGHUP"),
    (Signal::SIGILL, 157, "SIGILL"),
];

/// Installs the handlers.
///
/// # Errors
/// The host refused.
pub fn install() -> io::Result<()> {
    for (signal, ..) in STATUSES {
        handle(signal, end)?;
    }
    Ok(())
}

/// Has `handler` called once at `signal`; it may call only what is async-signal-safe (signal-safety(7)).
#[expect(unsafe_code, reason = "installing a signal handler is")]
pub(crate) fn handle(signal: Signal, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(handler),
        // Once: what happens in the handler, or after it, has the signal's default effect.
        // On the stack kept for signals: a thread that overflowed its own has no other.
        SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    // SAFETY: the handlers of this crate, `end` and the terminal's, call only tcsetattr, write, _exit
    // and raise, and read cells that were set before.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "std's ways to write and to end are not async-signal-safe"
)]
extern "C" fn end(signal: libc::c_int) {
    terminal::restore();
    for (known, status, name) in STATUSES {
        if known as libc::c_int == signal {
            for text in ["bantam: error: ended by ", name, "\n"] {
                // SAFETY: the text lives for ever, and its length is its own.
                unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
            }
            // SAFETY: it ends the process and touches nothing.
            unsafe { libc::_exit(status.into()) };
        }
    }
}
