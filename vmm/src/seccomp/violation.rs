//! A system call that was refused: which one, of which thread, and the end of the process.
//!
//! The kernel sends the thread SIGSYS in place of making the call. The handler does with it as the others do
//! ([`crate::process::signals`]); what it needs itself for that is in the part `report` of the built-in list.

use crate::process::exit_status::BAD_SYSTEM_CALL;
use crate::process::{logging, terminal};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use syscalls::Sysno;

/// Longest name of a thread in messages; a drive's may be longer.
const NAME: usize = 40;
/// `si_code` of a call that a filter refused (asm-generic/siginfo.h).
const SYS_SECCOMP: libc::c_int = 1;

thread_local! {
    // Without a destructor, so that the handler may read it.
    static THREAD: Cell<([u8; NAME], usize)> = const { Cell::new(([0; NAME], 0)) };
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

/// What messages call the calling thread.
pub fn call_this_thread(name: &str) {
    let mut bytes = [0; NAME];
    let mut len = 0;
    for (to, from) in bytes.iter_mut().zip(name.bytes()) {
        *to = from;
        len += 1;
    }
    THREAD.set((bytes, len));
}

/// Installs the handler.
///
/// # Errors
/// The host refused.
#[expect(unsafe_code, reason = "installing a signal handler is")]
pub fn install() -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::SigAction(report),
        // On the stack kept for signals, as the others. Not held back in its own handler: there it is to
        // end the process too, with the same status.
        SaFlags::SA_SIGINFO | SaFlags::SA_NODEFER | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    // SAFETY: the handler calls only functions that are async-signal-safe (signal-safety(7)):
    // tcsetattr, write and _exit, formats numbers on its stack, and reads cells that were set before.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

/// The part of `siginfo_t` for SIGSYS, which libc does not name (asm-generic/siginfo.h).
#[repr(C)]
struct SigSys {
    signo: libc::c_int,
    errno: libc::c_int,
    code: libc::c_int,
    _padding: libc::c_int,
    call_address: *const libc::c_void,
    syscall: libc::c_int,
    arch: libc::c_uint,
}

#[expect(
    unsafe_code,
    reason = "std's ways to write and to end are not async-signal-safe; what the kernel hands over is raw"
)]
extern "C" fn report(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if REPORTING.replace(true) {
        // The report itself was refused, by a list of the user's.
        // SAFETY: it ends the process and touches nothing.
        unsafe { libc::_exit(BAD_SYSTEM_CALL.into()) };
    }
    // SAFETY: the kernel hands over a whole siginfo_t, which is larger, for a handler with SA_SIGINFO.
    let info = unsafe { &*info.cast::<SigSys>() };
    terminal::restore();
    if info.code != SYS_SECCOMP {
        return die();
    }
    // SAFETY: the third argument of such a handler is the interrupted thread's ucontext_t.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let text = describe(info.syscall, registers);
    let fds = [Some(libc::STDERR_FILENO), logging::file_for_signals()];
    for fd in fds.into_iter().flatten() {
        // SAFETY: the text outlives the call, and its length is its own.
        unsafe { libc::write(fd, text.bytes.as_ptr().cast(), text.len) };
    }
    // SAFETY: it ends the process and touches nothing.
    unsafe { libc::_exit(BAD_SYSTEM_CALL.into()) };
}

/// Ends the process by the signal, which somebody sent.
#[expect(
    unsafe_code,
    reason = "a handler may not use more than the call itself"
)]
fn die() {
    let signal = SigSet::from(Signal::SIGSYS);
    // While it is held back, the kernel ends a process by it whose call a filter refuses. The next call is on
    // no list: it is refused where there is a filter, and made where there is none.
    let _ = signal.thread_block();
    // SAFETY: it is the default disposition that is set.
    let _ = unsafe { libc::signal(libc::SIGSYS, libc::SIG_DFL) };
    let _ = raise(Signal::SIGSYS);
    let _ = signal.thread_unblock();
}

/// The registers of a call's arguments, in order.
const REGISTERS: [libc::c_int; 6] = [
    libc::REG_RDI,
    libc::REG_RSI,
    libc::REG_RDX,
    libc::REG_R10,
    libc::REG_R8,
    libc::REG_R9,
];

fn describe(number: libc::c_int, registers: &[libc::greg_t]) -> Text {
    let mut text = Text::new();
    let (name, len) = THREAD.get();
    let thread = name.get(..len).and_then(|name| str::from_utf8(name).ok());
    let call = usize::try_from(number).ok().and_then(Sysno::new);
    let call = call.map_or("that has no name", |call| call.name());
    // What does not fit is left out.
    let _ = write!(
        text,
        "bantam: error: thread {} made the system call {call} ({number}), which its seccomp filter refuses; \
         its arguments:",
        thread.unwrap_or("?")
    );
    for register in REGISTERS {
        let value = usize::try_from(register)
            .ok()
            .and_then(|at| registers.get(at));
        let _ = write!(text, " {:#x}", value.copied().unwrap_or_default());
    }
    let _ = text.write_str("\n");
    text
}

/// A line without an allocation.
struct Text {
    bytes: [u8; 400],
    len: usize,
}

impl Text {
    fn new() -> Self {
        Self {
            bytes: [0; 400],
            len: 0,
        }
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for byte in text.bytes() {
            *self.bytes.get_mut(self.len).ok_or(std::fmt::Error)? = byte;
            self.len += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "violation_test.rs"]
mod violation_test;
