//! Saved state of virtio devices: separate types, so that the format changes only on purpose.

use serde::{Deserialize, Serialize};

/// What a device carries besides its queues and features: opaque to all but the device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceState {
    /// Version of `bytes`, the device's own count.
    pub version: u32,
    /// The state.
    pub bytes: Vec<u8>,
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
}
