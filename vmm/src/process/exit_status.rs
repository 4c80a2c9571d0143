//! The outcome of a guest, and the exit status that reports it.
//!
//! | status | meaning |
//! |---|---|
//! | 0 | the guest powered off or reset, or the console's user quit |
//! | 1 | the host refused something: KVM, memory, a tap |
//! | 2 | the monitor itself failed |
//! | 3 to 127 | the status that the payload wrote to the exit port 0xf4 |
//! | 148 | a seccomp filter refused a system call |
//! | 152 | the configuration, or a file it names, cannot be used |
//! | 153 | bad arguments |
//! | 160 | the guest's kernel panicked |
//! | 161 | KVM could not enter the guest |
//! | 162 | KVM met an internal error |
//!
//! 148 to 157 are Firecracker's. A shell reports a process that died of a signal as 128 plus the signal's number.

use devices::platform::guest_event::GuestEvent;
use std::fmt;

/// The host refused something.
pub const HOST_FAILURE: u8 = 1;
/// The monitor itself failed.
pub const UNEXPECTED: u8 = 2;
/// A seccomp filter refused a system call.
pub const BAD_SYSTEM_CALL: u8 = 148;
/// The configuration, or a file it names, cannot be used.
pub const BAD_CONFIGURATION: u8 = 152;
/// The command line cannot be used.
pub const BAD_ARGUMENTS: u8 = 153;
/// The guest's kernel panicked.
pub const GUEST_PANIC: u8 = 160;
/// KVM could not enter the guest.
pub const FAILED_ENTRY: u8 = 161;
/// KVM met an internal error.
pub const KVM_INTERNAL_ERROR: u8 = 162;

/// The way in which the guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The guest ended itself.
    Guest(GuestEvent),
    /// The console's user quit.
    Quit,
    /// KVM could not enter the guest, for this hardware-specific reason.
    FailedEntry(u64),
    /// KVM met an internal error, such as an instruction that it cannot emulate.
    KvmInternalError,
    /// A vCPU's thread failed.
    VcpuFailed,
    /// The guest does not exist, because its snapshot could not be loaded.
    NotRestored,
}

impl Outcome {
    /// Returns the process's exit status.
    pub fn status(self) -> u8 {
        match self {
            Self::Guest(GuestEvent::PowerOff | GuestEvent::Reset) | Self::Quit => 0,
            Self::Guest(GuestEvent::Exit(status)) => status,
            Self::Guest(GuestEvent::Panicked) => GUEST_PANIC,
            Self::FailedEntry(_) => FAILED_ENTRY,
            Self::KvmInternalError => KVM_INTERNAL_ERROR,
            Self::VcpuFailed => UNEXPECTED,
            Self::NotRestored => HOST_FAILURE,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Guest(GuestEvent::PowerOff) => f.write_str("the guest powered off"),
            Self::Guest(GuestEvent::Reset) => f.write_str("the guest reset"),
            Self::Guest(GuestEvent::Panicked) => f.write_str("the guest's kernel panicked"),
            Self::Guest(GuestEvent::Exit(status)) => {
                write!(f, "the guest's payload ended with status {status}")
            }
            Self::Quit => f.write_str("quit from the console"),
            Self::FailedEntry(reason) => write!(
                f,
                "KVM could not enter the guest (hardware reason {reason:#x}): the kernel set up a \
                 state that this processor refuses, see the host's kernel log"
            ),
            Self::KvmInternalError => f.write_str(
                "KVM met an internal error, mostly an instruction it cannot emulate: does this \
                 host have hardware virtualization (svm or vmx in /proc/cpuinfo)?",
            ),
            Self::VcpuFailed => f.write_str("a vCPU failed"),
            Self::NotRestored => f.write_str("the snapshot could not be loaded"),
        }
    }
}
