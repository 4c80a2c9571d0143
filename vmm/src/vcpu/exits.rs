//! The run loop of a vCPU: entering the guest and serving its exits.

use super::context::VmContext;
use super::gate::Pass;
use super::kick::KickGuard;
use crate::process::exit_status::Outcome;
use devices::platform::guest_event::GuestEvent;
use devices::util::timer::now;
use kvm_bindings::{KVM_SYSTEM_EVENT_CRASH, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{VcpuExit, VcpuFd};

/// Runs the vCPU `index` until its thread must end. Returns the outcome if this vCPU failed. `entered` tells whether it was
/// in the guest before it was restored.
pub(super) fn run(
    index: u8,
    vcpu: &mut VcpuFd,
    mut entered: bool,
    context: &VmContext,
) -> Option<Outcome> {
    let mut kicks = KickGuard::start(vcpu);
    let mut jobs = 0;
    // Whether an access was answered and KVM has not completed it yet.
    let mut answered = false;
    loop {
        kicks.clear();
        let vcpu = kicks.vcpu();
        if answered && context.gate.is_shut() && !context.end.is_set() {
            if let Some(failure) = complete(vcpu, context) {
                return Some(failure);
            }
            answered = false;
        }
        match context.gate.pass(&mut jobs) {
            Pass::EnterAfterPause if entered => after_pause(vcpu, context),
            Pass::Enter | Pass::EnterAfterPause => entered = true,
            Pass::Job(job) => {
                job(index, vcpu);
                context.gate.finish_job();
                continue;
            }
            Pass::End => return None,
        }
        if context.end.is_set() {
            // The gate decides when the thread ends.
            context.gate.wait_for_end();
            return None;
        }
        match enter(vcpu, context) {
            Entered::Answered => answered = true,
            Entered::Kicked => answered = false,
            Entered::Failed(outcome) => return Some(outcome),
        }
    }
}

/// The end of a run of the guest.
enum Entered {
    /// An exit that was answered.
    Answered,
    /// A signal, or a vCPU that waits for its start-up interrupt.
    Kicked,
    /// A failure.
    Failed(Outcome),
}

fn enter(vcpu: &mut VcpuFd, context: &VmContext) -> Entered {
    match vcpu.run() {
        Ok(exit) => match answer(exit, context) {
            None => Entered::Answered,
            Some(Outcome::Guest(event)) => {
                context.end.set(Outcome::Guest(event));
                Entered::Answered
            }
            Some(failure) => Entered::Failed(failure),
        },
        Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => Entered::Kicked,
        Err(e) => {
            log::error!("KVM_RUN failed: {e}");
            Entered::Failed(Outcome::VcpuFailed)
        }
    }
}

/// Makes KVM complete the last exit without running the guest (KVM API, 5, on `immediate_exit`). Before that, the registers
/// are those before the access and cannot be saved. An access may consist of several exits.
fn complete(vcpu: &mut VcpuFd, context: &VmContext) -> Option<Outcome> {
    vcpu.set_kvm_immediate_exit(1);
    let failure = loop {
        match enter(vcpu, context) {
            Entered::Answered if context.end.is_set() => break None,
            Entered::Answered => {}
            Entered::Kicked => break None,
            Entered::Failed(outcome) => break Some(outcome),
        }
    };
    vcpu.set_kvm_immediate_exit(0);
    failure
}

/// Reports the pause to the guest's clock. Otherwise the guest's watchdog would report a lock-up.
fn after_pause(vcpu: &VcpuFd, context: &VmContext) {
    match vcpu.kvmclock_ctrl() {
        Ok(()) => {}
        // The guest does not use the clock.
        Err(e) if e.errno() == libc::EINVAL => {}
        Err(e) => {
            log::warn!("KVM cannot tell the guest's clock about the pause: {e}");
            context.metrics.kvmclock_ctrl_fails.increment();
        }
    }
}

/// Serves one exit. Returns the outcome if it ends the guest.
fn answer(exit: VcpuExit<'_>, context: &VmContext) -> Option<Outcome> {
    let buses = &context.buses;
    if let Some(coalesced) = &context.coalesced {
        coalesced.drain(buses);
        match &exit {
            VcpuExit::IoIn(port, _) => coalesced.observe(&context.vm, *port, None),
            VcpuExit::IoOut(port, data) => {
                coalesced.observe(&context.vm, *port, data.first().copied());
            }
            _ => {}
        }
    }
    let (started, metrics) = (now(), &context.metrics);
    let (count, time) = match exit {
        VcpuExit::IoIn(port, data) => {
            read(&buses.port, port.into(), data);
            (&metrics.exit_io_in, &metrics.exit_io_in_agg)
        }
        VcpuExit::IoOut(port, data) => {
            buses.port.write(port.into(), data);
            (&metrics.exit_io_out, &metrics.exit_io_out_agg)
        }
        VcpuExit::MmioRead(address, data) => {
            read(&buses.memory, address, data);
            (&metrics.exit_mmio_read, &metrics.exit_mmio_read_agg)
        }
        VcpuExit::MmioWrite(address, data) => {
            buses.memory.write(address, data);
            (&metrics.exit_mmio_write, &metrics.exit_mmio_write_agg)
        }
        // A triple fault resets a PC.
        VcpuExit::Shutdown => return Some(Outcome::Guest(GuestEvent::Reset)),
        VcpuExit::SystemEvent(kind, _) => return system_event(kind),
        VcpuExit::FailEntry(reason, _cpu) => return Some(Outcome::FailedEntry(reason)),
        VcpuExit::InternalError => return Some(Outcome::KvmInternalError),
        VcpuExit::Intr | VcpuExit::Hlt | VcpuExit::IrqWindowOpen | VcpuExit::Nmi => return None,
        other => {
            log::error!("KVM returned {other:?}, which this monitor does not expect");
            return Some(Outcome::VcpuFailed);
        }
    };
    count.increment();
    time.record(now().saturating_sub(started));
    None
}

/// Reads from `bus`. An address without a device reads as ones, as on a floating bus.
fn read(bus: &devices::bus::Bus, address: u64, data: &mut [u8]) {
    if !bus.read(address, data) {
        data.fill(0xff);
    }
}

fn system_event(kind: u32) -> Option<Outcome> {
    let event = match kind {
        KVM_SYSTEM_EVENT_SHUTDOWN => GuestEvent::PowerOff,
        KVM_SYSTEM_EVENT_RESET => GuestEvent::Reset,
        KVM_SYSTEM_EVENT_CRASH => GuestEvent::Panicked,
        _ => return None,
    };
    Some(Outcome::Guest(event))
}
