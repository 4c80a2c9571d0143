//! Lifecycle events of the guest, and their subscribers.

use crate::process::exit_status::Outcome;
use devices::lock;
use devices::platform::guest_event::GuestEvent;
use serde::Serialize;
use std::sync::{Arc, Mutex};

/// A lifecycle event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The guest was started.
    Started,
    /// The guest was restored from a snapshot or fork, and is paused.
    Restored {
        /// The snapshot's id.
        id: String,
    },
    /// The guest was saved, and is paused.
    Saved {
        /// The snapshot's id.
        id: String,
    },
    /// The guest was copied.
    Forked {
        /// Number of copies.
        children: usize,
    },
    /// The guest was paused.
    Paused,
    /// The guest was resumed.
    Resumed,
    /// The guest rebooted, and starts again in the same process.
    Rebooted,
    /// The guest rebooted too often, and waits before it starts again.
    RebootDelayed {
        /// Length of the wait in seconds.
        seconds: u64,
    },
    /// A drive has another file or other rate limits.
    DriveChanged {
        /// The drive's id.
        drive_id: String,
    },
    /// An interface has other rate limits.
    NetworkChanged {
        /// The interface's id.
        iface_id: String,
    },
    /// The balloon has another target size.
    BalloonChanged {
        /// Target size in MiB.
        amount_mib: u32,
    },
    /// The guest's kernel panicked.
    Panicked,
    /// The guest has ended, and the process ends next.
    Stopped {
        /// The process's exit status.
        status: u8,
        /// The outcome in words.
        reason: String,
    },
}

impl Event {
    /// Returns the event of the guest's end.
    pub fn ended(outcome: Outcome) -> Self {
        Self::Stopped {
            status: outcome.status(),
            reason: outcome.to_string(),
        }
    }
}

/// A function that receives events on the main thread. It must not block.
type Subscriber = Box<dyn Fn(&Event) + Send>;

/// Publishes lifecycle events to subscribers.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Subscriber>>>);

impl Events {
    /// Adds a subscriber.
    pub fn subscribe(&self, listener: impl Fn(&Event) + Send + 'static) {
        lock(&self.0).push(Box::new(listener));
    }

    /// Passes `event` to all subscribers.
    pub fn publish(&self, event: Event) {
        for listener in lock(&self.0).iter() {
            listener(&event);
        }
    }

    /// Publishes the guest's end.
    pub fn publish_end(&self, outcome: Outcome) {
        if outcome == Outcome::Guest(GuestEvent::Panicked) {
            self.publish(Event::Panicked);
        }
        self.publish(Event::ended(outcome));
    }
}
