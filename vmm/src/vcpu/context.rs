//! The context that all vCPUs of a machine share.

use super::buses::Buses;
use super::coalesced::Coalesced;
use super::gate::Gate;
use super::guest_end::GuestEnd;
use super::metrics::VcpuMetrics;
use devices::GuestMemory;
use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VmFd};
use std::sync::Arc;

/// The shared context of the vCPUs. KVM's memory slots point into the memory, so memory and VM are dropped last.
pub struct VmContext {
    /// Buses for accesses without memory.
    pub buses: Buses,
    /// The guest's end.
    pub end: GuestEnd,
    /// The gate that stops the vCPUs.
    pub gate: Arc<Gate>,
    /// Collected serial output, if KVM supports it.
    pub coalesced: Option<Coalesced>,
    /// Metrics of the vCPUs.
    pub metrics: Arc<VcpuMetrics>,
    /// The VM.
    pub vm: VmFd,
    /// The host's KVM.
    pub kvm: Kvm,
    /// The CPUID that was set on each vCPU.
    pub cpuids: Vec<CpuId>,
    /// The guest's memory.
    pub memory: GuestMemory,
}
