//! vCPUs: creating them, setting them up, and the thread that runs each.

mod coalesced;
mod cpuid;
mod exits;
mod msrs;
mod registers;

use crate::machine::builder::Guest;
use boot::EntryState;
use devices::bus::Bus;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::io;
use std::sync::Arc;

pub use coalesced::{Coalesced, FlushTimer};
pub use cpuid::Topology;

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

/// The buses a vCPU's accesses go to.
#[derive(Debug, Default)]
pub struct Buses {
    /// I/O ports.
    pub port: Bus,
    /// Guest-physical addresses without memory.
    pub memory: Bus,
}

/// A vCPU that is ready to run.
pub struct Vcpu {
    index: u8,
    fd: VcpuFd,
}

impl Vcpu {
    /// The ring of writes that KVM collects for all vCPUs, reached through this one.
    pub(crate) fn coalesced(&self, vm: &VmFd) -> io::Result<Option<Coalesced>> {
        Coalesced::new(vm, &self.fd)
    }
}

/// Creates the vCPUs; the first starts with `entry`, the others wait for it.
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
        let refused = |what| {
            move |e: kvm_ioctls::Error| VcpuError::Refused {
                index,
                what,
                source: e.into(),
            }
        };
        let fd = vm
            .create_vcpu(index.into())
            .map_err(refused("the creation"))?;
        let cpuid = cpuid::for_vcpu(&supported, topology, index);
        fd.set_cpuid2(&cpuid).map_err(refused("the CPUID"))?;
        msrs::set(&fd).map_err(refused("the model-specific registers"))?;
        if index == 0 {
            registers::set(&fd, entry).map_err(refused("the registers"))?;
        }
        vcpus.push(Vcpu { index, fd });
    }
    Ok(vcpus)
}

/// Starts the thread of `vcpu`, which runs until the guest ends and then waits for the process to.
///
/// # Errors
/// [`VcpuError::Thread`].
pub fn start(mut vcpu: Vcpu, guest: Arc<Guest>) -> Result<(), VcpuError> {
    let index = vcpu.index;
    std::thread::Builder::new()
        .name(format!("fc_vcpu {index}"))
        .spawn(move || {
            if let Some(outcome) = exits::run(&mut vcpu.fd, &guest) {
                log::error!("vCPU {index}: {outcome}");
                guest.end.set(outcome);
            }
            loop {
                // With its share of the guest's memory, which other vCPUs may still run in.
                std::thread::park();
            }
        })
        .map_err(|source| VcpuError::Thread { index, source })?;
    Ok(())
}
