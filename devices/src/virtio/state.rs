//! Saved state of virtio devices. The types are separate from the live ones, so that the format changes only on purpose.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Largest [`DeviceState::bytes`] that is parsed.
const MAX_BYTES: usize = 64 << 10;

/// Device-specific state besides queues and features. Only the device reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Format version of `bytes`, counted per device type.
    pub version: u32,
    /// The encoded state.
    pub bytes: Vec<u8>,
}

impl DeviceState {
    /// Encodes `state` as JSON, which all devices use.
    pub fn encode(version: u32, state: &impl Serialize) -> Self {
        Self {
            version,
            // Serializing numbers and lists of numbers cannot fail.
            bytes: serde_json::to_vec(state).unwrap_or_default(),
        }
    }

    /// Decodes the state of a device that knows `version`.
    ///
    /// # Errors
    /// [`StateError::Version`] or [`StateError::Unreadable`].
    pub fn decode<T: DeserializeOwned>(&self, version: u32) -> Result<T, StateError> {
        if self.version != version {
            return Err(StateError::Version {
                saved: self.version,
                known: version,
            });
        }
        if self.bytes.len() > MAX_BYTES {
            return Err(StateError::Unreadable(format!(
                "{} bytes",
                self.bytes.len()
            )));
        }
        serde_json::from_slice(&self.bytes).map_err(|e| StateError::Unreadable(e.to_string()))
    }
}

/// Saved state of one queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedQueue {
    /// Size that the driver chose, in entries.
    pub size: u16,
    /// True if the driver enabled the queue.
    pub ready: bool,
    /// Index of the next entry of the available ring.
    pub next_avail: u16,
    /// Index of the next entry of the used ring.
    pub next_used: u16,
    /// Guest address of the descriptor table.
    pub desc_table: u64,
    /// Guest address of the available ring.
    pub avail_ring: u64,
    /// Guest address of the used ring.
    pub used_ring: u64,
}

/// Selector registers. A guest may be saved between writing a selector and the access that it selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selectors {
    /// Selected half of the offered features.
    pub device_features: u32,
    /// Selected half of the accepted features.
    pub driver_features: u32,
    /// Selected queue.
    pub queue: u32,
}

/// Saved state of a virtio device and its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioState {
    /// Device status register.
    pub status: u32,
    /// Features the driver accepted.
    pub features: u64,
    /// Pending interrupt causes.
    pub interrupts: u32,
    /// Selector registers.
    pub select: Selectors,
    /// The queues.
    pub queues: Vec<SavedQueue>,
    /// Configuration generation.
    #[serde(default)]
    pub config_generation: u32,
    /// The configuration space, to detect a change across restore. Empty if unknown.
    #[serde(default)]
    pub config: Vec<u8>,
    /// Device-specific state.
    pub device: DeviceState,
}

/// The state does not fit the device.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StateError {
    /// The number of queues differs.
    #[error("the saved device has {saved} queues, the new one has {present}")]
    QueueCount {
        /// Queues in the state.
        saved: usize,
        /// Queues of the device.
        present: usize,
    },
    /// The driver uses features that the new device does not offer.
    #[error("the saved device uses features {0:#x}, which the new one does not offer")]
    Features(u64),
    /// The state of this queue is invalid.
    #[error("saved queue {0} is malformed")]
    Queue(usize),
    /// The device status is invalid.
    #[error("the saved device status {0:#x} is invalid")]
    Status(u32),
    /// The interrupt causes are invalid.
    #[error("the saved interrupt causes {0:#x} are invalid")]
    Interrupts(u32),
    /// The version of the device-specific state is unknown.
    #[error("the device-specific state has version {saved}, but only version {known} is supported")]
    Version {
        /// Version of the state.
        saved: u32,
        /// Version that the device supports.
        known: u32,
    },
    /// The device-specific state cannot be parsed.
    #[error("cannot read the device-specific state: {0}")]
    Unreadable(String),
    /// The device-specific state has an invalid value.
    #[error("the device-specific state has an invalid {0}")]
    Value(&'static str),
}
