//! Installs handlers of signals that end the process.

use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io;

/// Installs `handler` for one delivery of `signal`. It may call only async-signal-safe functions (signal-safety(7)).
#[expect(unsafe_code, reason = "installing a signal handler is")]
pub(super) fn handle(signal: Signal, handler: extern "C" fn(libc::c_int)) -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::Handler(handler),
        // One delivery: a signal during the handler, or after it, has its default effect. The handler runs on the signal
        // stack, because a thread that overflowed its own stack has no other.
        SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    // SAFETY: the handlers of this crate, `end` and the terminal's, call only tcsetattr, write, _exit and raise, and
    // read cells that were set before.
    unsafe { sigaction(signal, &action) }?;
    Ok(())
}
