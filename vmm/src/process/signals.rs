//! Signals that end the process with an exit status of their own, as in Firecracker: the parent can tell them apart even
//! behind a wrapper that hides signals.

use super::signal_handler::handle;
use super::terminal;
use nix::sys::signal::Signal;
use std::io;

/// The exit status for each signal.
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
/// The host refused a handler.
pub fn install() -> io::Result<()> {
    for (signal, ..) in STATUSES {
        handle(signal, end)?;
    }
    Ok(())
}

#[expect(
    unsafe_code,
    reason = "std's ways to write and to exit are not async-signal-safe"
)]
extern "C" fn end(signal: libc::c_int) {
    terminal::restore();
    for (known, status, name) in STATUSES {
        if known as libc::c_int == signal {
            for text in ["bantam: error: ended by ", name, "\n"] {
                // SAFETY: the text is static, and the length is its own.
                unsafe { libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len()) };
            }
            // SAFETY: the call ends the process and touches no memory.
            unsafe { libc::_exit(status.into()) };
        }
    }
}
