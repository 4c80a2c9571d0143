//! Creates vCPUs, for a boot or from saved states.

use super::coalesced::Coalesced;
use super::cpuid::{self, Topology};
use super::error::{VcpuError, refused};
use super::state::{self, VcpuState};
use super::{msrs, registers};
use boot::EntryState;
use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::io;

/// A vCPU that is ready to run.
pub struct Vcpu {
    pub(super) index: u8,
    pub(super) fd: VcpuFd,
    /// The CPUID that was set. KVM may show the guest another one.
    cpuid: CpuId,
    /// Whether the vCPU was in the guest before it was saved.
    pub(super) entered: bool,
}

impl Vcpu {
    /// Returns the CPUID that was set.
    pub(crate) fn cpuid(&self) -> CpuId {
        self.cpuid.clone()
    }

    /// Maps the ring of collected writes, which all vCPUs share.
    pub(crate) fn coalesced(&self, vm: &VmFd) -> io::Result<Option<Coalesced>> {
        Coalesced::new(vm, &self.fd)
    }
}

/// Creates the vCPUs of a boot. The first starts with `entry`, and the others wait for it.
///
/// # Errors
/// [`VcpuError`].
pub fn create(
    kvm: &Kvm,
    vm: &VmFd,
    topology: &Topology,
    entry: &EntryState,
) -> Result<Vec<Vcpu>, VcpuError> {
    let supported = cpuid::supported(kvm)?;
    let mut vcpus = Vec::with_capacity(topology.vcpus.into());
    for index in 0..topology.vcpus {
        let refused = |what| refused(index, what);
        let fd = vm
            .create_vcpu(index.into())
            .map_err(refused("the creation"))?;
        let cpuid = cpuid::for_vcpu(&supported, topology, index);
        fd.set_cpuid2(&cpuid).map_err(refused("the CPUID"))?;
        msrs::set(&fd).map_err(refused("the model-specific registers"))?;
        if index == 0 {
            registers::set(&fd, entry).map_err(refused("the registers"))?;
        }
        vcpus.push(Vcpu {
            index,
            fd,
            cpuid,
            entered: false,
        });
    }
    Ok(vcpus)
}

/// Creates vCPUs with the saved `states`.
///
/// # Errors
/// [`VcpuError`], for example because this host's processor lacks a feature.
pub fn restore(kvm: &Kvm, vm: &VmFd, states: &[VcpuState]) -> Result<Vec<Vcpu>, VcpuError> {
    let supported = cpuid::supported(kvm)?;
    let mut vcpus = Vec::with_capacity(states.len());
    for (index, saved) in (0..=u8::MAX).zip(states) {
        saved
            .fits(&supported)
            .map_err(|why| VcpuError::OtherProcessor { index, why })?;
        let fd = vm
            .create_vcpu(index.into())
            .map_err(refused(index, "the creation"))?;
        let cpuid = state::restore(index, vm, &fd, saved)?;
        vcpus.push(Vcpu {
            index,
            fd,
            cpuid,
            entered: true,
        });
    }
    Ok(vcpus)
}
