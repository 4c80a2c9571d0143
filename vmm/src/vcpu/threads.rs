//! The threads of vCPUs.

use super::context::VmContext;
use super::create::Vcpu;
use super::error::VcpuError;
use super::exits;
use super::gate::Vcpus;
use crate::process::confined_thread::{self, Confinement};
use crate::process::exit_status::Outcome;
use crate::seccomp::{Filters, Thread};
use std::sync::Arc;

/// The pending confinement of all vCPU threads.
pub struct Confining(Vec<(u8, Confinement)>);

impl Confining {
    /// Waits until all threads are confined by their filters. The guest must not run before.
    ///
    /// # Errors
    /// [`VcpuError::Thread`]: the kernel refused a filter.
    pub fn wait(self) -> Result<(), VcpuError> {
        for (index, confinement) in self.0 {
            let confined = confinement.wait();
            confined.map_err(|source| VcpuError::Thread { index, source })?;
        }
        Ok(())
    }
}

/// Starts a thread for each of `vcpus`. The threads confine themselves by `seccomp` and wait at the machine's gate for
/// the first [`Vcpus::resume`].
///
/// # Errors
/// [`VcpuError::Thread`]; the threads that were started end.
pub fn start(
    vcpus: Vec<Vcpu>,
    context: &Arc<VmContext>,
    seccomp: &Arc<Filters>,
) -> Result<(Vcpus, Confining), VcpuError> {
    let mut threads = Vec::with_capacity(vcpus.len());
    let mut confinements = Vec::with_capacity(vcpus.len());
    for vcpu in vcpus {
        let index = vcpu.index;
        let name = format!("fc_vcpu {index}");
        let (of_thread, seccomp, thread_name) = (context.clone(), seccomp.clone(), name.clone());
        let confine = move || seccomp.confine(Thread::Vcpu, &thread_name);
        let started =
            confined_thread::spawn(&name, confine, move |is_confined| match is_confined {
                true => run(vcpu, &of_thread),
                false => of_thread.gate.wait_for_end(),
            });
        match started {
            Ok((thread, confinement)) => {
                threads.push(thread);
                confinements.push((index, confinement));
            }
            Err(source) => {
                Vcpus::new(context.gate.clone(), threads).end();
                return Err(VcpuError::Thread { index, source });
            }
        }
    }
    let vcpus = Vcpus::new(context.gate.clone(), threads);
    Ok((vcpus, Confining(confinements)))
}

/// Runs a vCPU until its thread must end.
fn run(mut vcpu: Vcpu, context: &VmContext) {
    let index = vcpu.index;
    if let Some(outcome) = exits::run(index, &mut vcpu.fd, vcpu.entered, context) {
        failed(index, outcome, context);
    }
}

/// Ends the guest because of the first failure, and waits for the end of the thread.
fn failed(index: u8, outcome: Outcome, context: &VmContext) {
    log::error!("vCPU {index}: {outcome}");
    context.metrics.failures.increment();
    context.end.set(outcome);
    context.gate.wait_for_end();
}
