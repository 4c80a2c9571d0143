//! The contract between a virtio device and its transport. A device implements these two traits and deals with neither
//! registers nor event loops.

use super::queue::{DeviceQueue, QueueError};
use super::report::Report;
use super::state::{DeviceState, StateError};
use super::update::{DeviceUpdate, UpdateError};
use crate::util::metrics::MetricSet;
use crate::util::source::Source;
use std::borrow::Cow;
use std::io;
use std::sync::Arc;

/// The event loop that serves a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Loops {
    /// The loop of all cheap devices.
    #[default]
    Shared,
    /// A loop on a thread of its own, because the device's operations block.
    Own,
}

/// The identity, features and queues of a device. The transport asks for it once.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Virtio device id (section 5).
    pub id: u32,
    /// Feature bits of the device type; the transport adds those of the transport and the rings.
    pub features: u64,
    /// Largest size of each queue: powers of two up to 32768.
    pub queue_sizes: Vec<u16>,
    /// The event loop that must serve the queues.
    pub loops: Loops,
}

/// The driver-facing half of a device: identity and configuration. The transport owns it.
pub trait VirtioDevice: Send {
    /// Returns the device's offer, which never changes.
    fn offer(&self) -> Offer;

    /// Returns the device-specific configuration space. A handler that changes it calls
    /// [`DeviceQueue::signal_config_change`].
    fn config(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&[])
    }

    /// Handles a driver's write to the configuration space. `offset` and `data` are untrusted.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    /// Returns the half that serves the queues, when the driver is ready and accepted `features`.
    ///
    /// # Errors
    /// An error of the host. The transport then requests a device reset from the driver.
    fn start(&mut self, features: u64) -> io::Result<Box<dyn QueueHandler>>;

    /// Called when the transport could not start the device.
    fn start_failed(&mut self) {}

    /// Called after the driver reset the (stopped) device. Drops state kept for the next handler.
    fn reset(&mut self) {}

    /// Changes the device. Called only while it is stopped. The transport signals a changed configuration to the driver and
    /// starts the device again if it was in use.
    ///
    /// # Errors
    /// [`UpdateError`]; the device is unchanged.
    fn update(&mut self, _change: DeviceUpdate) -> Result<(), UpdateError> {
        Err(UpdateError::Unsupported)
    }

    /// Returns the device's metrics.
    fn metrics(&self) -> Option<Arc<dyn MetricSet>> {
        None
    }

    /// Returns the device's report. The device may be running.
    fn report(&self) -> Report {
        Report::None
    }

    /// Saves the device-specific state. Called only while the device is stopped.
    fn save(&self) -> DeviceState;

    /// Loads the state that [`Self::save`] of a device of the same type returned. Called on a new device before its first
    /// start. The configuration stays that of this device. The bytes are untrusted.
    ///
    /// # Errors
    /// [`StateError`]; the device is unchanged.
    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError>;
}

/// The queue-serving half of a device. One event loop owns it at a time; no vCPU touches it.
pub trait QueueHandler: Send {
    /// Returns the descriptors to wait on besides the queues. The index in the list is the token.
    ///
    /// # Errors
    /// A descriptor could not be duplicated.
    fn sources(&self) -> io::Result<Vec<Source>> {
        Ok(Vec::new())
    }

    /// Handles a kick of queue `index`.
    ///
    /// # Errors
    /// The ring is broken. The transport stops the device until the driver resets it.
    fn on_queue(&mut self, index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError>;

    /// Handles the readiness of source `token`.
    ///
    /// # Errors
    /// As [`Self::on_queue`].
    fn on_source(&mut self, _token: usize, _queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        Ok(())
    }

    /// Completes or returns all requests in flight, so that the queues alone describe the device.
    ///
    /// # Errors
    /// As [`Self::on_queue`].
    fn drain(&mut self, _queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        Ok(())
    }
}
