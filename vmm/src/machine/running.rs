//! A machine that was built: running, pausing, changing and ending it.
//!
//! The controller owns it on the main thread. Pausing stops first the vCPUs and then the devices; resuming starts them in
//! reverse order.

use super::attach::SharedTransport;
use super::device_factory::DeviceIdentity;
use super::error::MachineError;
use super::pages::Pages;
use super::platform::Platform;
use crate::event_loop::{Added, SpawnedLoop};
use crate::process::exit_status::Outcome;
use crate::vcpu::{Confining, GuestEnd, Vcpus, VmContext};
use devices::lock;
use devices::platform::i8042::I8042;
use devices::platform::serial::{SerialMetrics, SerialPort};
use devices::util::metrics::MetricSet;
use devices::virtio::report::Report;
use devices::virtio::section::FromSection;
use devices::virtio::update::{DeviceUpdate, UpdateError};
use std::io;
use std::sync::{Arc, Mutex};

/// A virtio device of a machine.
pub struct Device {
    pub(super) identity: DeviceIdentity,
    pub(super) transport: SharedTransport,
    own_loop: Option<SpawnedLoop>,
}

impl Device {
    pub(super) fn new(
        identity: DeviceIdentity,
        transport: SharedTransport,
        own_loop: Option<SpawnedLoop>,
    ) -> Self {
        Self {
            identity,
            transport,
            own_loop,
        }
    }
}

/// Why a device was not changed.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The machine has no such device.
    #[error("Device not found")]
    NotFound,
    /// The device refused the change.
    #[error(transparent)]
    Update(#[from] UpdateError),
}

/// A guest with its devices and vCPUs.
pub struct Machine {
    pub(super) context: Arc<VmContext>,
    pub(super) vcpus: Vcpus,
    /// The pending confinement of the vCPU threads.
    confining: Option<Confining>,
    pub(super) devices: Vec<Device>,
    pub(super) platform: Platform,
    flush: Option<Added>,
    pub(super) pages: Pages,
}

impl Machine {
    pub(super) fn new(
        context: Arc<VmContext>,
        (vcpus, confining): (Vcpus, Confining),
        devices: Vec<Device>,
        platform: Platform,
        flush: Option<Added>,
        pages: Pages,
    ) -> Self {
        Self {
            context,
            vcpus,
            confining: Some(confining),
            devices,
            platform,
            flush,
            pages,
        }
    }

    /// Waits until the threads of vCPUs and devices are confined. Call it before the first [`Self::resume`].
    ///
    /// # Errors
    /// The kernel refused a filter: the guest must not run.
    pub fn wait_until_confined(&mut self) -> Result<(), MachineError> {
        for own_loop in self.devices.iter_mut().flat_map(|d| &mut d.own_loop) {
            own_loop.wait_until_confined()?;
        }
        Ok(self.confining.take().map_or(Ok(()), Confining::wait)?)
    }

    /// Starts devices and vCPUs, at first and after [`Self::pause`].
    pub fn resume(&mut self) {
        self.platform.output.set_blocking(true);
        for device in &self.devices {
            lock(&device.transport).resume();
        }
        self.vcpus.resume();
    }

    /// Pauses the machine. On return no vCPU is in the guest, and no device has a request in flight.
    pub fn pause(&mut self) {
        self.platform.output.set_blocking(false);
        self.vcpus.pause();
        self.drain_console();
        for device in &self.devices {
            lock(&device.transport).pause();
        }
    }

    /// Returns the guest's outcome, if it has ended.
    pub fn outcome(&self) -> Option<Outcome> {
        self.context.end.outcome()
    }

    /// Returns a handle that ends the guest.
    pub fn end_handle(&self) -> GuestEnd {
        self.context.end.clone()
    }

    /// Returns the console's serial port.
    pub fn serial(&self) -> Arc<Mutex<SerialPort>> {
        self.platform.serial.clone()
    }

    /// Returns the metrics of the console's serial port.
    pub fn serial_metrics(&self) -> Arc<SerialMetrics> {
        self.platform.serial_metrics.clone()
    }

    /// Returns the keyboard controller; `None` if the guest has none.
    pub fn keyboard(&self) -> Option<&Mutex<I8042>> {
        self.platform.keyboard.as_deref()
    }

    /// Presses the power button. A guest that handles it powers off.
    ///
    /// # Errors
    /// The event descriptor cannot be written.
    pub fn press_power_button(&self) -> io::Result<()> {
        self.platform.power_button.write(1)
    }

    /// Changes the device of type `D` with the id `id`.
    ///
    /// # Errors
    /// [`DeviceError`]; the device is unchanged.
    pub fn update<D: FromSection>(
        &mut self,
        id: Option<&str>,
        change: DeviceUpdate,
    ) -> Result<(), DeviceError> {
        let device = self.device::<D>(id).ok_or(DeviceError::NotFound)?;
        Ok(lock(&device.transport).update(change)?)
    }

    /// Returns the report of the device of type `D` with the id `id`.
    pub fn report<D: FromSection>(&self, id: Option<&str>) -> Option<Report> {
        let device = self.device::<D>(id)?;
        Some(lock(&device.transport).report())
    }

    fn device<D: FromSection>(&self, id: Option<&str>) -> Option<&Device> {
        let mut devices = self.devices.iter();
        devices.find(|device| device.identity.is::<D>(id))
    }

    /// Returns the metrics of each device.
    pub fn metrics(&self) -> impl Iterator<Item = (&DeviceIdentity, Arc<dyn MetricSet>)> {
        self.devices.iter().filter_map(|device| {
            let set = lock(&device.transport).metrics()?;
            Some((&device.identity, set))
        })
    }

    /// Writes console output that KVM has collected.
    pub fn drain_console(&self) {
        if let Some(coalesced) = &self.context.coalesced {
            coalesced.drain(&self.context.buses);
        }
    }

    /// Takes the machine apart: ends its threads and closes its host resources.
    pub fn end(mut self) {
        self.pause();
        self.vcpus.end();
        if let Some(flush) = self.flush {
            flush.remove();
        }
        for device in &mut self.devices {
            if let Some(own_loop) = device.own_loop.take() {
                own_loop.end();
            }
        }
    }
}
