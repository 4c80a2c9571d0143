//! What happens to the guest, told to whoever listens: the API's event stream.

use crate::process::exit_status::Outcome;
use devices::lock;
use devices::platform::guest_event::GuestEvent;
use serde::Serialize;
use std::sync::{Arc, Mutex};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// The guest runs.
    Started,
    /// It was restored from a snapshot, and stands still.
    Restored {
        /// The snapshot.
        id: String,
    },
    /// It was saved, and stands still.
    Saved {
        /// The snapshot.
        id: String,
    },
    /// Copies of it were made.
    Forked {
        /// How many.
        children: usize,
    },
    /// It stands still.
    Paused,
    /// It goes on.
    Resumed,
    /// It rebooted, and starts again in the same process.
    Rebooted,
    /// It rebooted too often in too short a time: it waits before it starts again.
    RebootDelayed {
        /// How long.
        seconds: u64,
    },
    /// A drive has another file, or other limits.
    DriveChanged {
        /// Which.
        drive_id: String,
    },
    /// An interface has other limits.
    NetworkChanged {
        /// Which.
        iface_id: String,
    },
    /// The balloon has another size to come to.
    BalloonChanged {
        /// In MiB.
        amount_mib: u32,
    },
    /// The guest's kernel panicked.
    Panicked,
    /// The guest has ended; the process follows.
    Stopped {
        /// The process's exit status.
        status: u8,
        /// In words.
        reason: String,
    },
}

impl Event {
    /// The guest's end.
    pub fn ended(outcome: Outcome) -> Self {
        Self::Stopped {
            status: outcome.status(),
            reason: outcome.to_string(),
        }
    }
}

/// Hears of events; called on the main thread, so it must not block.
type Subscriber = Box<dyn Fn(&Event) + Send>;

/// Where events are told.
#[derive(Clone, Default)]
pub struct Events(Arc<Mutex<Vec<Subscriber>>>);

impl Events {
    /// Tells `listener` from now on.
    pub fn subscribe(&self, listener: impl Fn(&Event) + Send + 'static) {
        lock(&self.0).push(Box::new(listener));
    }

    /// Tells all.
    pub fn publish(&self, event: Event) {
        for listener in lock(&self.0).iter() {
            listener(&event);
        }
    }

    /// Tells how the guest ended.
    pub fn publish_end(&self, outcome: Outcome) {
        if outcome == Outcome::Guest(GuestEvent::Panicked) {
            self.publish(Event::Panicked);
        }
        self.publish(Event::ended(outcome));
    }
}
