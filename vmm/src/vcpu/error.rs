//! Why a vCPU cannot be used.

use std::io;

/// Why a vCPU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM refused something.
    #[error("KVM refused {what} of vCPU {index}")]
    Refused {
        /// Which vCPU.
        index: u8,
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The host's processor cannot be described.
    #[error("KVM does not say which processor features it supports")]
    SupportedCpuid(#[source] io::Error),
    /// It was saved on another processor.
    #[error("vCPU {index} cannot go on here: {why}")]
    OtherProcessor {
        /// Which vCPU.
        index: u8,
        /// What is missing.
        why: String,
    },
    /// No more threads.
    #[error("cannot start the thread of vCPU {index}")]
    Thread {
        /// Which vCPU.
        index: u8,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// For `map_err` of an operation on vCPU `index`.
pub(super) fn refused(
    index: u8,
    what: &'static str,
) -> impl FnOnce(kvm_ioctls::Error) -> VcpuError {
    move |e| VcpuError::Refused {
        index,
        what,
        source: e.into(),
    }
}
