//! Events that a guest reports through a platform device: power-off, reset, panic, exit status.

use std::sync::Arc;

/// An event that ends or restarts the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// The guest powered itself off.
    PowerOff,
    /// The guest requested a reset.
    Reset,
    /// The guest's kernel panicked.
    Panicked,
    /// A payload ended the guest with this status, 3 to 127.
    Exit(u8),
}

/// Callback for a [`GuestEvent`]. Devices call it on a vCPU thread, so it must not block.
pub type EventSink = Arc<dyn Fn(GuestEvent) + Send + Sync>;
