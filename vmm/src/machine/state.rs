//! All of a machine besides its memory: what [`Machine::save`] hands out, and a machine is built from again.
//!
//! A machine is built from its configuration exactly as at boot; then each part gets its state. There is no second
//! wiring.

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

/// A machine at rest, without its memory.
#[derive(Debug, Serialize, Deserialize)]
pub struct MachineState {
    /// The host's clock when it was saved, in nanoseconds since 1970.
    pub saved_at: u64,
    /// What the VM has in the kernel.
    pub vm: VmState,
    /// By their number.
    pub vcpus: Vec<VcpuState>,
    /// In the order of their windows.
    pub devices: Vec<SavedDevice>,
    /// Console, keyboard and the like.
    pub platform: PlatformState,
}

/// A virtio device of the machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct SavedDevice {
    /// What the configuration calls it, as messages do.
    pub name: String,
    /// Its state.
    pub state: VirtioState,
}

/// What all vCPUs share in the kernel.
#[derive(Debug, Serialize, Deserialize)]
pub struct VmState {
    /// The two PICs and the I/O APIC, in KVM's order.
    irqchips: Vec<Raw<kvm_irqchip>>,
    /// The paravirtual clock.
    clock: Raw<kvm_clock_data>,
}

/// The devices that every machine has.
#[derive(Debug, Serialize, Deserialize)]
pub struct PlatformState {
    /// KVM collects what the guest writes to its console.
    pub collects_console: bool,
    /// The console's port.
    serial: SerialState,
    /// `None` if the guest has no keyboard.
    keyboard: Option<I8042State>,
    /// The PCI host bridge.
    pci_host: PciHostState,
}

/// Why a machine was not saved. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// There is no guest any more.
    #[error("the guest has ended")]
    Ended,
    /// A vCPU.
    #[error(transparent)]
    Vcpu(#[from] VcpuError),
    /// The VM.
    #[error("KVM does not tell {what}")]
    Vm {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The interrupt controllers, in the order in which they are kept.
const IRQCHIPS: [u32; 3] = [
    KVM_IRQCHIP_PIC_MASTER,
    KVM_IRQCHIP_PIC_SLAVE,
    KVM_IRQCHIP_IOAPIC,
];

/// Nanoseconds since 1970 by the host's clock.
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

    /// Puts the state into `vm`, of which the vCPUs have theirs.
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
        // Only the reading counts: what KVM said of how good it was is not KVM's to be told.
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

    /// Loads `state`, once the interrupt controllers have theirs, and tells the guest that it is another than it was.
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
                let why = "the one has a keyboard controller, and the other none";
                return Err(MachineError::State(why.into()));
            }
        }
        lock(&self.pci_host).restore(&state.pci_host);
        let renewed = self.generation.renew().map_err(io::Error::other);
        renewed.map_err(MachineError::set_up("the guest's generation"))
    }
}

impl MachineState {
    /// Lets the guest's clocks go on by the time that the host's went on since it was saved.
    pub fn advance_clocks(&mut self) {
        let elapsed = now().saturating_sub(self.saved_at);
        self.vm.clock.0.clock = self.vm.clock.0.clock.saturating_add(elapsed);
        for vcpu in &mut self.vcpus {
            vcpu.advance(elapsed);
        }
    }
}

impl Machine {
    /// The state of the machine, which is held.
    ///
    /// # Errors
    /// [`SaveError`].
    pub fn save(&self) -> Result<MachineState, SaveError> {
        self.save_beside(|| ())
    }

    /// [`Self::save`], with `also` done while the vCPUs' threads save theirs; not if there is no guest any more.
    ///
    /// # Errors
    /// [`SaveError`].
    pub(super) fn save_beside(&self, also: impl FnOnce()) -> Result<MachineState, SaveError> {
        if self.outcome().is_some() {
            return Err(SaveError::Ended);
        }
        let context = &self.context;
        let msrs = vcpu::msr_indices(&context.kvm)
            .map_err(vm_error("which model-specific registers it has"))?;
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
