//! The devices that every guest has: console, power button, panic device, exit port, PCI host bridge and, usually, a
//! keyboard controller.

use super::attach::irqfd;
use super::error::MachineError;
use crate::console::Output;
use boot::layout;
use devices::GuestMemory;
use devices::bus::{Bus, SharedDevice};
use devices::platform::guest_event::EventSink;
use devices::platform::i8042::{self, I8042};
use devices::platform::pci_host::{self, PciHost};
use devices::platform::power::{self, ExitPort, PowerControl};
use devices::platform::pvpanic::PvPanic;
use devices::platform::serial::{SerialMetrics, SerialPort};
use devices::platform::vmgenid::Generation;
use kvm_ioctls::VmFd;
use resources::VmConfig;
use std::io;
use std::sync::{Arc, Mutex};
use vm_memory::GuestAddress;
use vmm_sys_util::eventfd::EventFd;

pub(super) fn insert(
    bus: &mut Bus,
    base: u64,
    len: u64,
    device: impl devices::bus::BusDevice + 'static,
) -> Result<(), MachineError> {
    insert_shared(bus, base, len, Arc::new(Mutex::new(device)))
}

fn insert_shared(
    bus: &mut Bus,
    base: u64,
    len: u64,
    device: SharedDevice,
) -> Result<(), MachineError> {
    bus.insert(base, len, device)
        .map_err(|e| MachineError::set_up("the platform's devices")(io::Error::other(e)))
}

/// The platform devices that the monitor itself uses.
pub(super) struct Platform {
    pub serial: Arc<Mutex<SerialPort>>,
    /// The console's output.
    pub output: Output,
    /// Metrics of the serial port. A vCPU that waits for the output may hold the port itself.
    pub serial_metrics: Arc<SerialMetrics>,
    /// The keyboard controller; `None` if the guest has none.
    pub keyboard: Option<Arc<Mutex<I8042>>>,
    pub pci_host: Arc<Mutex<PciHost>>,
    /// Event descriptor that raises the power button's interrupt.
    pub power_button: EventFd,
    /// Generation id of the guest.
    pub generation: Generation,
}

/// Adds the platform devices to the port bus.
pub(super) fn add_platform(
    vm: &VmFd,
    memory: &GuestMemory,
    ports: &mut Bus,
    events: &EventSink,
    output: &Output,
    config: &VmConfig,
) -> Result<Platform, MachineError> {
    let line = |gsi| irqfd(vm, gsi).map_err(MachineError::set_up("the platform's interrupts"));
    let serial_metrics = Arc::<SerialMetrics>::default();
    let own = Box::new(output.counting(serial_metrics.clone()));
    let serial = SerialPort::new(line(layout::COM1_GSI)?, own, serial_metrics.clone());
    let serial = Arc::new(Mutex::new(serial));
    ports
        .insert(
            layout::COM1_PORT.into(),
            layout::COM1_PORTS.into(),
            serial.clone(),
        )
        .map_err(|e| MachineError::set_up("the console")(io::Error::other(e)))?;

    let keyboard = match config.machine_config.i8042 {
        true => {
            let keyboard = I8042::new(line(layout::I8042_GSI)?, events.clone());
            let keyboard = Arc::new(Mutex::new(keyboard));
            insert_shared(
                ports,
                layout::I8042_DATA_PORT.into(),
                i8042::LEN,
                keyboard.clone(),
            )?;
            Some(keyboard)
        }
        false => None,
    };
    let pci_host = Arc::new(Mutex::new(PciHost::default()));
    insert_shared(ports, pci_host::PORT, pci_host::LEN, pci_host.clone())?;
    let power = PowerControl::new(events.clone());
    insert(ports, layout::SLEEP_CONTROL_PORT.into(), power::LEN, power)?;
    insert(
        ports,
        layout::PVPANIC_PORT.into(),
        1,
        PvPanic::new(events.clone()),
    )?;
    insert(
        ports,
        layout::PAYLOAD_EXIT_PORT.into(),
        1,
        ExitPort::new(events.clone()),
    )?;
    Ok(Platform {
        serial,
        output: output.clone(),
        serial_metrics,
        keyboard,
        pci_host,
        power_button: line(layout::EVENT_GSI)?,
        generation: Generation::new(
            memory.clone(),
            GuestAddress(layout::GENERATION_ID),
            GuestAddress(layout::CLOCK_PAGE),
            line(layout::GENERATION_GSI)?,
        ),
    })
}
