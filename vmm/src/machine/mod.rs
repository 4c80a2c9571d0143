//! The machine: VM, memory, devices and vCPUs, built from a configuration, restored from a state, and run to its end.
//!
//! The controller owns it. Only this room and `vcpu` call KVM. It knows neither the API nor the format of snapshots.

pub mod attach;
pub mod boot_timer;
pub mod builder;
pub mod device_factory;
mod dirty_pages;
mod error;
pub mod freeze;
mod kvm;
pub mod lent;
pub mod memory;
mod pages;
mod platform;
mod running;
pub mod state;

pub use builder::{Origin, build};
pub use error::MachineError;
pub use kvm::KvmError;
pub use running::{DeviceError, Machine};
pub use state::{MachineState, SaveError};
