//! A descriptor that an event loop watches.

use event_manager::EventSet;
use std::os::fd::OwnedFd;

/// A descriptor that a queue handler waits on besides its queues.
#[derive(Debug)]
pub struct Source {
    /// A duplicate of the descriptor; the loop owns it.
    pub fd: OwnedFd,
    /// The events to wait for. A source that the handler does not always empty must be edge-triggered, or the loop spins.
    pub events: EventSet,
}
