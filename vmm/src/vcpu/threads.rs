//! The threads of vCPUs.

use super::context::VmContext;
use super::create::Vcpu;
use super::error::VcpuError;
use super::exits;
use super::gate::Vcpus;
use crate::process::exit_status::Outcome;
use crate::seccomp::{Filters, Thread};
use std::io;
use std::sync::{Arc, mpsc};

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
    context: &Arc<VmContext>,
    seccomp: &Arc<Filters>,
) -> Result<(Vcpus, Confining), VcpuError> {
    let mut threads = Vec::with_capacity(vcpus.len());
    let (tx, confined) = mpsc::channel();
    for vcpu in vcpus {
        let index = vcpu.index;
        let (of_thread, seccomp, tx) = (context.clone(), seccomp.clone(), tx.clone());
        let started = std::thread::Builder::new()
            .name(format!("fc_vcpu {index}"))
            .spawn(move || run(vcpu, &of_thread, &seccomp, tx));
        match started {
            Ok(thread) => threads.push(thread),
            Err(source) => {
                Vcpus::new(context.gate.clone(), threads).end();
                return Err(VcpuError::Thread { index, source });
            }
        }
    }
    let vcpus = Vcpus::new(context.gate.clone(), threads);
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
    context: &VmContext,
    seccomp: &Filters,
    confined: mpsc::Sender<(u8, io::Result<()>)>,
) {
    let result = seccomp.confine(Thread::Vcpu, &format!("fc_vcpu {index}"));
    let may_run = result.is_ok();
    // The other end waits for it, unless the start has failed elsewhere.
    let _ = confined.send((index, result));
    drop(confined);
    if !may_run {
        return context.gate.wait_for_end();
    }
    if let Some(outcome) = exits::run(index, &mut fd, entered, context) {
        failed(index, outcome, context);
    }
}

/// The first failure is the guest's end; the thread then waits for its own.
fn failed(index: u8, outcome: Outcome, context: &VmContext) {
    log::error!("vCPU {index}: {outcome}");
    context.metrics.failures.increment();
    context.end.set(outcome);
    context.gate.wait_for_end();
}
