//! Why a machine cannot be built.

use super::kvm::KvmError;
use super::memory::mapping::MemoryError;
use crate::event_loop::EventLoopError;
use crate::vcpu::VcpuError;
use boot::BootError;
use devices::virtio::section::BuildError;
use std::io;

/// Why a machine cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum MachineError {
    /// KVM cannot be used.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Guest memory cannot be mapped.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A file that the configuration names cannot be opened.
    #[error("{key}: cannot open {path}")]
    Open {
        /// The key in the configuration.
        key: String,
        /// The file's path.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel cannot be booted.
    #[error("boot-source")]
    Boot(#[source] BootError),
    /// A device cannot be built.
    #[error(transparent)]
    Device(#[from] BuildError),
    /// There are more devices than register windows and interrupts.
    #[error(
        "the configuration has more devices than the {0} that a machine has room for: remove some drives or network \
         interfaces"
    )]
    TooManyDevices(usize),
    /// A device or a thread could not be set up.
    #[error("cannot set up {what}")]
    SetUp {
        /// The device or thread.
        what: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A vCPU cannot be used.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The saved state is of another machine.
    #[error("the saved state does not fit its machine: {0}")]
    State(String),
    /// An event loop failed.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
}

impl MachineError {
    /// Returns whether the configuration, or a file it names, is at fault, and not the host.
    pub fn is_configuration(&self) -> bool {
        matches!(
            self,
            Self::Open { .. }
                | Self::Boot(_)
                | Self::TooManyDevices(_)
                | Self::Device(BuildError {
                    is_configuration: true,
                    ..
                })
        )
    }

    pub(crate) fn set_up(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::SetUp { what, source }
    }
}
