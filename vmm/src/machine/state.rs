//! The state of a machine without its memory: what [`Machine::save`] returns, and what a machine is restored from.
//!
//! A restored machine is built from its configuration exactly as at boot. Then each part loads its state.

use super::error::MachineError;
use super::kvm::KvmError;
use super::platform::Platform;
use super::running::Machine;
use crate::vcpu::{self, Raw, VcpuError, VcpuState};
use devices::lock;
use devices::platform::i8042::I8042State;
use devices::platform::pci_host::PciHostState;
use devices::platform::serial::SerialState;
use devices::virtio::state::VirtioState;
use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

/// The state of a paused machine, without its memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineState {
    /// The host's clock at the time of saving, in nanoseconds since 1970.
    pub saved_at: u64,
    /// State of the VM in the kernel.
    pub vm: VmState,
    /// States of the vCPUs by their number.
    pub vcpus: Vec<VcpuState>,
    /// States of the virtio devices in the order of their windows.
    pub devices: Vec<SavedDevice>,
    /// States of the platform devices.
    pub platform: PlatformState,
}

/// The state of a virtio device.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedDevice {
    /// The device's name in messages and threads.
    pub name: String,
    /// The device's state.
    pub state: VirtioState,
}

/// The in-kernel state that all vCPUs share.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmState {
    /// The two PICs and the I/O APIC, in KVM's order.
    irqchips: Vec<Raw<kvm_irqchip>>,
    /// The paravirtual clock.
    clock: Raw<kvm_clock_data>,
}

/// The state of the platform devices.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlatformState {
    /// Whether KVM collects the guest's console output.
    pub collects_console: bool,
    /// The console's serial port.
    serial: SerialState,
    /// The keyboard controller; `None` if the guest has none.
    keyboard: Option<I8042State>,
    /// The PCI host bridge.
    pci_host: PciHostState,
}

/// Why a machine was not saved. It is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The guest has ended.
    #[error("the guest has ended")]
    Ended,
    /// A vCPU cannot be saved.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// KVM refused a part of the VM's state.
    #[error("KVM does not return {what}")]
    Vm {
        /// The part.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The interrupt controllers in the order in which they are saved.
const IRQCHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

/// Returns the host's clock in nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let nanoseconds = since.unwrap_or(Duration::ZERO).as_nanos();
    u64::try_from(nanoseconds).unwrap_or(u64::MAX)
}

fn vm_error(what: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> SaveError {
    move |e| SaveError::Vm {
        what,
        source: e.into(),
    }
}

impl VmState {
    fn save(vm: &VmFd) -> Result<Self, SaveError> {
        let mut irqchips = Vec::with_capacity(IRQCHIPS.len());
        for chip_id in IRQCHIPS {
            let mut chip = kvm_irqchip {
                chip_id,
                ..Default::default()
            };
            vm.get_irqchip(&mut chip)
                .map_err(vm_error("the state of the interrupt controllers"))?;
            irqchips.push(Raw(chip));
        }
        let clock = vm.get_clock().map_err(vm_error("the guest's clock"))?;
        Ok(Self {
            irqchips,
            clock: Raw(clock),
        })
    }

    /// Loads the state into `vm`, after the vCPUs.
    pub(super) fn restore(&self, vm: &VmFd) -> Result<(), MachineError> {
        let refused = |what| KvmError::refused(what);
        if !self.irqchips.iter().map(|chip| chip.0.chip_id).eq(IRQCHIPS) {
            return Err(MachineError::State(
                "the interrupt controllers are not those of a PC".into(),
            ));
        }
        for chip in &self.irqchips {
            vm.set_irqchip(&chip.0)
                .map_err(refused("the saved state of the interrupt controllers"))?;
        }
        // Only the value is loaded. KVM does not accept the flags that it returned with it.
        let clock = kvm_clock_data {
            clock: self.clock.0.clock,
            ..Default::default()
        };
        Ok(vm.set_clock(&clock).map_err(refused("the saved clock"))?)
    }
}

impl Platform {
    fn save(&self, collects_console: bool) -> PlatformState {
        PlatformState {
            collects_console,
            serial: lock(&self.serial).save(),
            keyboard: self.keyboard.as_ref().map(|device| lock(device).save()),
            pci_host: lock(&self.pci_host).save(),
        }
    }

    /// Loads `state`, after the interrupt controllers, and gives the guest a new generation id.
    pub(super) fn restore(&self, state: &PlatformState) -> Result<(), MachineError> {
        let unfit = |e: &dyn std::error::Error| MachineError::State(e.to_string());
        lock(&self.serial)
            .restore(&state.serial)
            .map_err(|e| unfit(&e))?;
        match (&self.keyboard, &state.keyboard) {
            (Some(keyboard), Some(state)) => {
                lock(keyboard).restore(state).map_err(|e| unfit(&e))?;
            }
            (None, None) => {}
            _ => {
                let why = "only one of state and configuration has a keyboard controller";
                return Err(MachineError::State(why.into()));
            }
        }
        lock(&self.pci_host).restore(&state.pci_host);
        let renewed = self.generation.renew().map_err(io::Error::other);
        renewed.map_err(MachineError::set_up("the guest's generation"))
    }
}

impl MachineState {
    /// Advances the guest's clocks by the time that passed on the host since the state was saved.
    pub fn advance_clocks(&mut self) {
        let elapsed = now().saturating_sub(self.saved_at);
        self.vm.clock.0.clock = self.vm.clock.0.clock.saturating_add(elapsed);
        for vcpu in &mut self.vcpus {
            vcpu.advance(elapsed);
        }
    }
}

impl Machine {
    /// Saves the state of the paused machine.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save(&self) -> Result<MachineState, SaveError> {
        self.save_beside(|| ())
    }

    /// Saves the state while `also` runs on this thread. `also` does not run if the guest has ended.
    ///
    /// # Errors
    /// [`SaveError`].
    pub(super) fn save_beside(&self, also: impl FnOnce()) -> Result<MachineState, SaveError> {
        if self.outcome().is_some() {
            return Err(SaveError::Ended);
        }
        let context = &self.context;
        let msrs = vcpu::msr_indices(&context.kvm)
            .map_err(vm_error("the list of model-specific registers"))?;
        let saved: Arc<Mutex<BTreeMap<u8, Result<VcpuState, VcpuError>>>> = Arc::default();
        let (results, of_thread) = (saved.clone(), context.clone());
        let vm = self.vcpus.run_job(
            Arc::new(move |index, vcpu| {
                let cpuid = of_thread.cpuids.get(usize::from(index));
                let state = vcpu::save(index, vcpu, cpuid, &msrs);
                lock(&results).insert(index, state);
            }),
            || {
                also();
                VmState::save(&context.vm)
            },
        )?;
        let vcpus = std::mem::take(&mut *lock(&saved));
        let vcpus = vcpus.into_values().collect::<Result<_, _>>()?;
        let devices = self.devices.iter().map(|device| SavedDevice {
            name: device.identity.name.clone(),
            state: lock(&device.transport).save(),
        });
        Ok(MachineState {
            saved_at: now(),
            vm,
            vcpus,
            devices: devices.collect(),
            platform: self
                .platform
                .save(context.coalesced.as_ref().is_some_and(|c| c.is_on())),
        })
    }
}
