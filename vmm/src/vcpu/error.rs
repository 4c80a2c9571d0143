//! Why a vCPU cannot be used.

use std::io;

/// Why a vCPU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum VcpuError {
    /// KVM refused an operation.
    #[error("KVM refused {what} of vCPU {index}")]
    Refused {
        /// Number of the vCPU.
        index: u8,
        /// The operation.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// KVM does not report the host's processor features.
    #[error("KVM does not report the processor features that it supports")]
    SupportedCpuid(#[source] io::Error),
    /// The guest was saved on another processor.
    #[error("vCPU {index} cannot run on this host: {why}")]
    OtherProcessor {
        /// Number of the vCPU.
        index: u8,
        /// The missing feature.
        why: String,
    },
    /// The host has no more threads, or refused the thread's filter.
    #[error("cannot start the thread of vCPU {index}")]
    Thread {
        /// Number of the vCPU.
        index: u8,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Returns a closure for `map_err` of an operation on vCPU `index`.
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
