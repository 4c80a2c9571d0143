//! Reports a refused system call and its thread, and ends the process.
//!
//! The kernel sends the thread SIGSYS instead of making the call. The handler then ends the process, as the other handlers
//! do ([`crate::process::signals`]). The part `report` of the built-in lists allows the calls that it needs.

use crate::process::exit_status::BAD_SYSTEM_CALL;
use crate::process::{logging, terminal};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, raise, sigaction};
use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use syscalls::Sysno;

/// Longest name of a thread in a message. A drive's name may be longer.
const NAME: usize = 40;
/// `si_code` of a call refused by a filter (asm-generic/siginfo.h).
const SYS_SECCOMP: libc::c_int = 1;

thread_local! {
    // Without a destructor, so that the signal handler may read it.
    static THREAD: Cell<([u8; NAME], usize)> = const { Cell::new(([0; NAME], 0)) };
    static REPORTING: Cell<bool> = const { Cell::new(false) };
}

/// Sets the name of the calling thread in messages.
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
/// The host refused the handler.
#[expect(unsafe_code, reason = "installing a signal handler is")]
pub fn install() -> io::Result<()> {
    let action = SigAction::new(
        SigHandler::SigAction(report),
        // The handler runs on the signal stack, like the others. SIGSYS is not blocked in its own handler, where a second one
        // must end the process with the same status.
        SaFlags::SA_SIGINFO | SaFlags::SA_NODEFER | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    // SAFETY: the handler calls only async-signal-safe functions (signal-safety(7)): tcsetattr, write and _exit. It
    // formats numbers on its stack and reads cells that were set before.
    unsafe { sigaction(Signal::SIGSYS, &action) }?;
    Ok(())
}

/// The part of `siginfo_t` for SIGSYS, which libc does not define (asm-generic/siginfo.h).
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
    reason = "std's ways to write and to exit are not async-signal-safe, and the kernel passes raw pointers"
)]
extern "C" fn report(_signal: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if REPORTING.replace(true) {
        // A user's list refused the report itself.
        // SAFETY: the call ends the process and touches no memory.
        unsafe { libc::_exit(BAD_SYSTEM_CALL.into()) };
    }
    // SAFETY: for a handler with SA_SIGINFO the kernel passes a whole siginfo_t, which is larger.
    let info = unsafe { &*info.cast::<SigSys>() };
    terminal::restore();
    if info.code != SYS_SECCOMP {
        return end_by_sigsys();
    }
    // SAFETY: the third argument of such a handler is the interrupted thread's ucontext_t.
    let registers = unsafe { &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let text = describe(info.syscall, registers);
    let fds = [Some(libc::STDERR_FILENO), logging::file_for_signals()];
    for fd in fds.into_iter().flatten() {
        // SAFETY: the text outlives the call, and the length is its own.
        unsafe { libc::write(fd, text.bytes.as_ptr().cast(), text.len) };
    }
    // SAFETY: the call ends the process and touches no memory.
    unsafe { libc::_exit(BAD_SYSTEM_CALL.into()) };
}

/// Ends the process by a SIGSYS that another process sent.
#[expect(unsafe_code, reason = "a handler may call only the system call itself")]
fn end_by_sigsys() {
    let signal = SigSet::from(Signal::SIGSYS);
    // While SIGSYS is blocked, a refused call makes the kernel end the process by it. The next call is on no list: a filter
    // refuses it, and without a filter it is made.
    let _ = signal.thread_block();
    // SAFETY: the call sets the default action.
    let _ = unsafe { libc::signal(libc::SIGSYS, libc::SIG_DFL) };
    let _ = raise(Signal::SIGSYS);
    let _ = signal.thread_unblock();
}

/// The registers of a system call's arguments, in order.
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
    // Text that does not fit is dropped.
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

/// A line of text without an allocation.
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
