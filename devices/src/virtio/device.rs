//! The contract between a virtio device and its transport. A new device implements these two
//! traits and sees neither registers nor event loop.

use super::queue::{DeviceQueue, QueueError};
use super::report::Report;
use super::state::{DeviceState, StateError};
use super::update::{DeviceUpdate, UpdateError};
use crate::util::metrics::MetricSet;
use crate::util::source::Source;
use std::borrow::Cow;
use std::io;
use std::sync::Arc;

/// What a device offers to the driver; asked once.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Virtio device id (section 5).
    pub id: u32,
    /// Feature bits of the device type; the transport adds those of the transport and the rings.
    pub features: u64,
    /// Largest size of each queue: powers of two up to 32768.
    pub queue_sizes: Vec<u16>,
}

/// The driver-facing half: identity and configuration. Owned by the transport.
pub trait VirtioDevice: Send {
    /// What the device offers to the driver. The same for the life of the device.
    fn offer(&self) -> Offer;

    /// The device-specific configuration space. A handler that changes it tells so with
    /// [`DeviceQueue::tell_config_changed`].
    fn config(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }

    /// The driver wrote to the configuration space. `offset` and `data` are the guest's.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// The driver is ready and accepted `features`: hands out the half that serves the queues.
    ///
    /// # Errors
    /// What the host refused. The transport then asks the driver for a reset.
    fn start(&mut self, features: u64) -> io::Result<Box<dyn QueueHandler>>;

    /// The transport could not start the device.
    fn start_failed(&mut self) {}

    /// The driver reset the device, which is stopped: what a handler left for the next is forgotten.
    fn reset(&mut self) {}

    /// Changes the device; called only while stopped. What [`Self::config`] then shows is told to the
    /// driver, and a device in use starts anew.
    ///
    /// # Errors
    /// [`UpdateError`]; the device is then as it was.
    fn update(&mut self, _change: DeviceUpdate) -> Result<(), UpdateError> {
        Err(UpdateError::Unsupported)
    }

    /// The device's counters.
    fn metrics(&self) -> Option<Arc<dyn MetricSet>> {
        None
    }

    /// What the device tells of itself, running or not.
    fn report(&self) -> Report {
        Report::None
    }

    /// State besides queues and features; called only while stopped.
    fn save(&self) -> DeviceState;

    /// Takes on what [`Self::save`] told of a like device; called on a fresh one, before it is started. The
    /// configuration is that of this device: what it has and the other had not is left as it is. The bytes may
    /// be anybody's.
    ///
    /// # Errors
    /// [`StateError`]; the device is then as it was.
    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError>;
}

/// The queue-serving half. Owned by one loop at a time; never touched by a vCPU.
pub trait QueueHandler: Send {
    /// Descriptors to wait on besides the queues; the index is the token.
    ///
    /// # Errors
    /// A descriptor could not be duplicated.
    fn sources(&self) -> io::Result<Vec<Source>> {
        Ok(Vec::new())
    }

    /// The driver kicked queue `index`.
    ///
    /// # Errors
    /// The ring is broken: the transport retires the device until it is reset.
    fn on_queue(&mut self, index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError>;

    /// Source `token` is ready.
    ///
    /// # Errors
    /// As [`Self::on_queue`].
    fn on_source(&mut self, _token: usize, _queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        Ok(())
    }

    /// Completes or gives back everything in flight, so that the queues alone describe the device.
    ///
    /// # Errors
    /// As [`Self::on_queue`].
    fn drain(&mut self, _queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        Ok(())
    }
}
