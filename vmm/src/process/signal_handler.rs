//! Installs handlers of signals that end the process.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io;

/// Has `handler` called once at `signal`; it may call only what is async-signal-safe (signal-safety(7)).
#[expect(unsafe_code, reason = "installing a signal handler is")]
pub(super) fn handle(signal: Signal, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
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
