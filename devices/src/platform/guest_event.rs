//! What a guest tells its monitor through a device, other than by I/O.

use std::sync::Arc;

/// An event in the life of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestEvent {
    /// It switched itself off.
    PowerOff,
    /// It asked for a reset.
    Reset,
    /// Its kernel panicked.
    Panicked,
    /// A payload ends the guest with this status, 3 to 127.
    Exit(u8),
}

/// Where devices report a [`GuestEvent`]. Called on a vCPU's thread, so it must not block.
pub type EventSink = Arc<dyn Fn(GuestEvent) + Send + Sync>;
