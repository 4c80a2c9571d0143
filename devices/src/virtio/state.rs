//! Saved state of virtio devices: separate types, so that the format changes only on purpose.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Most bytes of [`DeviceState::bytes`] that are looked at.
const MAX_BYTES: usize = 64 << 10;

/// What a device carries besides its queues and features: opaque to all but the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Version of `bytes`, the device's own count.
    pub version: u32,
    /// The state.
    pub bytes: Vec<u8>,
}

impl DeviceState {
    /// `state` in the encoding that all devices share.
    pub fn encode(version: u32, state: &impl Serialize) -> Self {
        Self {
            version,
            // Numbers and lists of them can always be told.
            bytes: serde_json::to_vec(state).unwrap_or_default(),
        }
    }

    /// What [`Self::encode`] was given, of which the device knows `version`.
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

/// One queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedQueue {
    /// Entries the driver chose.
    pub size: u16,
    /// Whether the driver enabled it.
    pub ready: bool,
    /// Next entry of the available ring to serve.
    pub next_avail: u16,
    /// Next entry of the used ring to fill.
    pub next_used: u16,
    /// Guest address of the descriptor table.
    pub desc_table: u64,
    /// Guest address of the available ring.
    pub avail_ring: u64,
    /// Guest address of the used ring.
    pub used_ring: u64,
}

/// Registers that choose what others show; a guest may be saved between the two accesses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selectors {
    /// Half of the offered features that is read.
    pub device_features: u32,
    /// Half of the accepted features that is written.
    pub driver_features: u32,
    /// Queue that is set up.
    pub queue: u32,
}

/// A virtio device with its transport.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioState {
    /// Device status register.
    pub status: u32,
    /// Features the driver accepted.
    pub features: u64,
    /// Pending interrupt causes.
    pub interrupts: u32,
    /// Selecting registers.
    pub select: Selectors,
    /// The queues.
    pub queues: Vec<SavedQueue>,
    /// Number of the configuration.
    #[serde(default)]
    pub config_generation: u32,
    /// The configuration itself, to know whether the driver must hear of another one; empty if unknown.
    #[serde(default)]
    pub config: Vec<u8>,
    /// What the device adds.
    pub device: DeviceState,
}

/// The state does not fit the device it is loaded into.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum StateError {
    /// Another number of queues.
    #[error("the saved device has {saved} queues, this one {present}")]
    QueueCount {
        /// In the state.
        saved: usize,
        /// In the device.
        present: usize,
    },
    /// Features that this device does not offer.
    #[error("the saved device uses features {0:#x}, which this one does not offer")]
    Features(u64),
    /// A queue that cannot be.
    #[error("saved queue {0} is malformed")]
    Queue(usize),
    /// A status that no sequence of steps leads to.
    #[error("the saved device cannot have the status {0:#x}")]
    Status(u32),
    /// Interrupt causes that there are not.
    #[error("the saved device cannot have the interrupt causes {0:#x}")]
    Interrupts(u32),
    /// The device's own state is of another version of it.
    #[error("the device's own state has version {saved}, and only {known} is known")]
    Version {
        /// In the state.
        saved: u32,
        /// Of the device.
        known: u32,
    },
    /// The device's own state is no state.
    #[error("the device's own state cannot be read: {0}")]
    Unreadable(String),
    /// The device's own state has a value that cannot be.
    #[error("the device's own state cannot have this {0}")]
    Value(&'static str),
}
