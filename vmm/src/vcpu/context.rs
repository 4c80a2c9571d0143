//! What all vCPUs of a machine share.

use super::buses::Buses;
use super::coalesced::Coalesced;
use super::gate::Gate;
use super::guest_end::GuestEnd;
use super::metrics::VcpuMetrics;
use devices::GuestMemory;
use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VmFd};
use std::sync::Arc;

/// What the vCPUs share. KVM's slots point into the memory, so it goes last, with the VM.
pub struct VmContext {
    /// Where accesses go.
    pub buses: Buses,
    /// How the guest ends.
    pub end: GuestEnd,
    /// What stops the vCPUs.
    pub gate: Arc<Gate>,
    /// Serial output that KVM collects, where it can.
    pub coalesced: Option<Coalesced>,
    /// What the vCPUs count.
    pub metrics: Arc<VcpuMetrics>,
    /// The VM.
    pub vm: VmFd,
    /// The host's KVM.
    pub kvm: Kvm,
    /// What each vCPU was told to be.
    pub cpuids: Vec<CpuId>,
    /// Its memory.
    pub memory: GuestMemory,
}
