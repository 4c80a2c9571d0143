//! Attaches virtio devices: gives each a register window, an interrupt and doorbells.

use super::error::MachineError;
use boot::layout::{VIRTIO_MMIO_COUNT, VirtioMmioWindow, virtio_mmio_window};
use devices::GuestMemory;
use devices::bus::Bus;
use devices::virtio::device::VirtioDevice;
use devices::virtio::interrupt::LineInterrupt;
use devices::virtio::mmio::{MmioTransport, QUEUE_NOTIFY, Wiring};
use devices::virtio::worker::Loop;
use kvm_ioctls::{IoEventAddress, VmFd};
use std::io;
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// A device behind its registers. vCPUs and the controller share it.
pub type SharedTransport = Arc<Mutex<MmioTransport>>;

/// Assigns windows in order and wires devices to them.
pub struct Attacher<'a> {
    vm: &'a VmFd,
    mem: &'a GuestMemory,
    windows: Vec<VirtioMmioWindow>,
}

/// Returns a new event descriptor, non-blocking and closed on exec.
pub(super) fn eventfd() -> io::Result<EventFd> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)
}

/// Returns a new event descriptor that raises `gsi`.
pub(super) fn irqfd(vm: &VmFd, gsi: u32) -> io::Result<EventFd> {
    let fd = eventfd()?;
    vm.register_irqfd(&fd, gsi)?;
    Ok(fd)
}

impl<'a> Attacher<'a> {
    /// Creates an attacher without devices.
    pub fn new(vm: &'a VmFd, mem: &'a GuestMemory) -> Self {
        Self {
            vm,
            mem,
            windows: Vec::new(),
        }
    }

    /// Attaches `device` to `bus`. `event_loop` serves it, and messages call it `name`.
    ///
    /// # Errors
    /// [`MachineError::TooManyDevices`], or an error of the host.
    pub fn attach(
        &mut self,
        bus: &mut Bus,
        name: &str,
        device: Box<dyn VirtioDevice>,
        event_loop: Loop,
    ) -> Result<SharedTransport, MachineError> {
        let window = virtio_mmio_window(self.windows.len());
        let window = window.ok_or(MachineError::TooManyDevices(VIRTIO_MMIO_COUNT))?;
        let transport = self
            .wire(bus, window, device, event_loop)
            .map_err(MachineError::set_up(format!("the device {name}")))?;
        self.windows.push(window);
        Ok(transport)
    }

    fn wire(
        &self,
        bus: &mut Bus,
        window: VirtioMmioWindow,
        device: Box<dyn VirtioDevice>,
        event_loop: Loop,
    ) -> io::Result<SharedTransport> {
        let doorbell = IoEventAddress::Mmio(window.base + QUEUE_NOTIFY);
        let mut kicks = Vec::new();
        for (queue, _) in (0_u32..).zip(device.offer().queue_sizes) {
            let kick = eventfd()?;
            self.vm.register_ioevent(&kick, &doorbell, queue)?;
            kicks.push(kick);
        }
        let interrupt = LineInterrupt::new(irqfd(self.vm, window.gsi)?);
        let wiring = Wiring {
            mem: self.mem.clone(),
            interrupt: Arc::new(interrupt),
            event_loop,
            kicks,
        };
        let transport = Arc::new(Mutex::new(MmioTransport::new(device, wiring)));
        bus.insert(window.base, window.len, transport.clone())
            .map_err(io::Error::other)?;
        Ok(transport)
    }

    /// Returns the windows that hold a device.
    pub fn windows(self) -> Vec<VirtioMmioWindow> {
        self.windows
    }
}
