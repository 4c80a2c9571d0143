//! Signals during a start: they are blocked, and checked between its steps.

use crate::error::Error;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use std::io;
use std::mem::MaybeUninit;

/// Signals by which an operator or a service manager stops a start.
const ENDING: [Signal; 4] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// Blocked signals. Dropping this restores the former mask.
#[derive(Debug)]
pub struct Blocked {
    before: SigSet,
}

impl Blocked {
    /// Blocks the signals that would end this process.
    pub fn new() -> Result<Self, Error> {
        let mut before = SigSet::empty();
        let set: SigSet = ENDING.into_iter().filter(|s| !ignored(*s)).collect();
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut before))
            .map_err(Error::step("block signals"))?;
        Ok(Self { before })
    }
}

impl Drop for Blocked {
    /// A pending signal takes effect here.
    fn drop(&mut self) {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.before), None);
    }
}

/// Checks that none of the signals that [`Blocked`] blocks is pending.
///
/// # Errors
/// [`Error::Stopped`], if one is.
pub fn check() -> Result<(), Error> {
    let pending = pending().map_err(Error::step("look for signals"))?;
    let came = |s: &Signal| pending.contains(*s) && !ignored(*s);
    match ENDING.into_iter().find(came) {
        Some(signal) => Err(Error::Stopped(signal)),
        None => Ok(()),
    }
}

/// Restores the default action of SIGPIPE. Rust's runtime ignores the signal, and a program that this one executes
/// would inherit that.
#[expect(unsafe_code, reason = "signal has no safe wrapper")]
pub fn restore_pipe() {
    // SAFETY: the default action runs no code of this program.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

#[expect(unsafe_code, reason = "sigpending has no safe wrapper")]
fn pending() -> io::Result<SigSet> {
    let mut set = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the argument points to a set that lives until the call returns; all zeroes is a set.
    let (done, set) = unsafe { (libc::sigpending(set.as_mut_ptr()), set.assume_init()) };
    if done == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: sigpending has filled it.
    Ok(unsafe { SigSet::from_sigset_t_unchecked(set) })
}

/// Returns whether this process was started with `signal` ignored, as nohup does.
#[expect(unsafe_code, reason = "reading a disposition has no safe wrapper")]
fn ignored(signal: Signal) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: the new action is null, so nothing changes; the old one lives until the call
    // returns, and all zeroes is one.
    let action = unsafe {
        libc::sigaction(signal as libc::c_int, std::ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}
