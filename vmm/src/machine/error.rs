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
    /// KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// Guest memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// A file the configuration names.
    #[error("{key}: cannot open {path}")]
    Open {
        /// The key.
        key: String,
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What the guest boots.
    #[error("boot-source")]
    Boot(#[source] BootError),
    /// A device cannot be built.
    #[error(transparent)]
    Device(#[from] BuildError),
    /// More devices than there are windows and interrupts.
    #[error(
        "the configuration has more devices than the {0} that a machine has room for: remove some drives or network \
         interfaces"
    )]
    TooManyDevices(usize),
    /// A device or a thread could not be set up.
    #[error("cannot set up {what}")]
    SetUp {
        /// What.
        what: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A vCPU.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// What was saved is not of such a machine.
    #[error("the saved state does not fit its machine: {0}")]
    State(String),
    /// An event loop.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
}

impl MachineError {
    /// Whether the configuration, or a file it names, is at fault, and not the host.
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
