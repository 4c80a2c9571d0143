//! How a guest ended, told by whoever sees it first.

use crate::event_loop::wake;
use crate::process::exit_status::Outcome;
use devices::platform::guest_event::EventSink;
use devices::virtio::worker::Loop;
use std::sync::{Arc, OnceLock};

/// The end of one machine.
#[derive(Clone)]
pub struct GuestEnd {
    outcome: Arc<OnceLock<Outcome>>,
    event_loop: Loop,
}

impl GuestEnd {
    /// Not ended. `event_loop` is woken at the end.
    pub(crate) fn new(event_loop: &Loop) -> Self {
        Self {
            outcome: Arc::default(),
            event_loop: event_loop.clone(),
        }
    }

    /// Ends the guest, unless it has ended.
    pub fn set(&self, outcome: Outcome) {
        if self.outcome.set(outcome).is_ok() {
            wake(&self.event_loop);
        }
    }

    /// Whether the guest has ended: its vCPUs have nothing more to do.
    pub fn is_set(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// How, if it has.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.get().copied()
    }

    pub(crate) fn sink(&self) -> EventSink {
        let end = self.clone();
        Arc::new(move |event| end.set(Outcome::Guest(event)))
    }
}
