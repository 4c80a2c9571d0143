//! A descriptor for an event loop to watch.

use event_manager::EventSet;
use std::os::fd::OwnedFd;

/// A descriptor the handler waits on besides its queues.
#[derive(Debug)]
pub struct Source {
    /// A duplicate of the descriptor: the loop owns what it watches.
    pub fd: OwnedFd,
    /// Which events to wait for. A source that the handler does not always empty must be
    /// edge-triggered, or the loop spins on it.
    pub events: EventSet,
}
