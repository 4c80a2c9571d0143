//! vCPUs: creating them, setting them up, and the thread that runs each.

mod call;
mod coalesced;
mod cpuid;
mod exits;
mod gate;
mod metrics;
mod msrs;
mod registers;
mod state;

use crate::exit_status::Outcome;
use crate::machine::Guest;
use crate::seccomp::{Filters, Thread};
use boot::EntryState;
use devices::bus::Bus;
use kvm_bindings::CpuId;
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::io;
use std::sync::{Arc, mpsc};

pub use call::install_signal;
pub use coalesced::{Coalesced, FlushTimer};
pub use cpuid::Topology;
pub use gate::{Errand, Gate, Vcpus};
pub use metrics::VcpuMetrics;
pub use state::{VcpuState, indices as msr_indices, save};

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

/// The buses a vCPU's accesses go to.
#[derive(Debug, Default)]
pub struct Buses {
    /// I/O ports.
    pub port: Bus,
    /// Guest-physical addresses without memory.
    pub memory: Bus,
}

/// For `map_err` of an operation on vCPU `index`.
fn refused(index: u8, what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> VcpuError {
    move |e| VcpuError::Refused {
        index,
        what,
        source: e.into(),
    }
}

/// A vCPU that is ready to run.
pub struct Vcpu {
    index: u8,
    fd: VcpuFd,
    /// What it was told to be. KVM may show the guest another.
    cpuid: CpuId,
    /// It was in the guest before: it was restored.
    entered: bool,
}

impl Vcpu {
    /// What it was told to be.
    pub(crate) fn cpuid(&self) -> CpuId {
        self.cpuid.clone()
    }

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

/// Creates the vCPUs as `states` has them.
///
/// # Errors
/// [`VcpuError`]: among others, this host's processor lacks something.
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

/// Threads that were started, and may not be confined yet.
pub struct Confining(mpsc::Receiver<(u8, io::Result<()>)>);

impl Confining {
    /// Waits until each of the threads is confined by its filter: no guest before.
    ///
    /// # Errors
    /// [`VcpuError::Thread`]: the kernel refused a filter.
    pub fn wait(self) -> Result<(), VcpuError> {
        // It ends when each thread has spoken, for each has a sender of its own.
        for (index, result) in self.0 {
            result.map_err(|source| VcpuError::Thread { index, source })?;
        }
        Ok(())
    }
}

/// Starts a thread for each of `vcpus`. They confine themselves by their filter of `seccomp` and wait at the
/// guest's gate for the first [`Vcpus::resume`].
///
/// # Errors
/// [`VcpuError::Thread`]; those that were started end.
pub fn start(
    vcpus: Vec<Vcpu>,
    guest: &Arc<Guest>,
    seccomp: &Arc<Filters>,
) -> Result<(Vcpus, Confining), VcpuError> {
    let mut threads = Vec::with_capacity(vcpus.len());
    let (tx, confined) = mpsc::channel();
    for vcpu in vcpus {
        let index = vcpu.index;
        let (of_thread, seccomp, tx) = (guest.clone(), seccomp.clone(), tx.clone());
        let started = std::thread::Builder::new()
            .name(format!("fc_vcpu {index}"))
            .spawn(move || run(vcpu, &of_thread, &seccomp, tx));
        match started {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                Vcpus::new(guest.gate.clone(), threads).end();
                return Err(VcpuError::Thread { index, source });
            }
        }
    }
    let vcpus = Vcpus::new(guest.gate.clone(), threads);
    Ok((vcpus, Confining(confined)))
}

/// The life of a vCPU's thread.
fn run(
    Vcpu {
        index,
        mut fd,
        entered,
        ..
    }: Vcpu,
    guest: &Guest,
    seccomp: &Filters,
    confined: mpsc::Sender<(u8, io::Result<()>)>,
) {
    let result = seccomp.confine(Thread::Vcpu, &format!("fc_vcpu {index}"));
    let may_run = result.is_ok();
    // The other end waits for it, unless the start has failed elsewhere.
    let _ = confined.send((index, result));
    drop(confined);
    if !may_run {
        return guest.gate.wait_for_end();
    }
    if let Some(outcome) = exits::run(index, &mut fd, entered, guest) {
        failed(index, outcome, guest);
    }
}

/// The first failure is the guest's end; the thread then waits for its own.
fn failed(index: u8, outcome: Outcome, guest: &Guest) {
    log::error!("vCPU {index}: {outcome}");
    guest.metrics.failures.increment();
    guest.end.set(outcome);
    guest.gate.wait_for_end();
}
