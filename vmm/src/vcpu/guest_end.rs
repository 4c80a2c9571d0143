//! The end of a guest, reported by the first thread that sees it.

use crate::event_loop::wake;
use crate::process::exit_status::Outcome;
use devices::platform::guest_event::EventSink;
use devices::virtio::worker::Loop;
use std::sync::{Arc, OnceLock};

/// The outcome of a machine's guest, once it has ended.
#[derive(Clone)]
pub struct GuestEnd {
    outcome: Arc<OnceLock<Outcome>>,
    event_loop: Loop,
}

impl GuestEnd {
    /// Creates the handle of a guest that has not ended. `event_loop` is woken at the end.
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

    /// Returns whether the guest has ended.
    pub fn is_set(&self) -> bool {
        self.outcome.get().is_some()
    }

    /// Returns the outcome, if the guest has ended.
    pub fn outcome(&self) -> Option<Outcome> {
        self.outcome.get().copied()
    }

    pub(crate) fn sink(&self) -> EventSink {
        let end = self.clone();
        Arc::new(move |event| end.set(Outcome::Guest(event)))
    }
}
