//! What both halves of the balloon know. The configuration space is read by vCPUs, so it is made of
//! atomic words and no lock; the rest is for the loop and the API.

use crate::lock;
use resources::BalloonStats;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of `struct virtio_balloon_config` (section 5.5.4).
const CONFIG: usize = 16;

/// Command that ends a run of hints, from either side.
pub(super) const STOP: u32 = 0;
/// Command that gives the guest its hinted pages back.
pub(super) const DONE: u32 = 1;

/// The words of the configuration space, and what the guest told.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Pages asked for.
    pub target: AtomicU32,
    /// Pages in the balloon, as the driver says.
    pub actual: AtomicU32,
    /// The host's command to hint.
    pub command: AtomicU32,
    pub told: Mutex<Told>,
}

/// What the guest told, and how it is to be answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    /// Its statistics; sizes are not in there.
    pub statistics: BalloonStats,
    /// The command it last answered.
    pub command: Option<u32>,
    /// The last run of hints.
    pub last_run: u32,
    /// A run that the guest has ended is done.
    pub acknowledge: bool,
}

/// [`Shared`] at rest. Any value can be: the guest chooses some, and none means more than a number.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Saved {
    pub target: u32,
    actual: u32,
    command: u32,
    told: Told,
}

impl Shared {
    pub(super) fn save(&self) -> Saved {
        Saved {
            target: self.target.load(Ordering::Acquire),
            actual: self.actual.load(Ordering::Acquire),
            command: self.command.load(Ordering::Acquire),
            told: lock(&self.told).clone(),
        }
    }

    pub(super) fn restore(&self, saved: Saved) {
        self.target.store(saved.target, Ordering::Release);
        self.actual.store(saved.actual, Ordering::Release);
        self.command.store(saved.command, Ordering::Release);
        *lock(&self.told) = saved.told;
    }

    pub(super) fn config(&self) -> [u8; CONFIG] {
        let mut config = [0; CONFIG];
        // The last word, poison_val, belongs to a feature that is not offered.
        let words = [&self.target, &self.actual, &self.command];
        for (field, word) in config.chunks_exact_mut(4).zip(words) {
            field.copy_from_slice(&word.load(Ordering::Acquire).to_le_bytes());
        }
        config
    }

    /// The command to hint, if there is a run.
    pub(super) fn run(&self) -> Option<u32> {
        let command = self.command.load(Ordering::Acquire);
        (command != STOP && command != DONE).then_some(command)
    }
}

impl Told {
    /// The number of a new run: never one that means something else, and not the last one's.
    pub(super) fn start_run(&mut self, acknowledge: bool) -> u32 {
        self.acknowledge = acknowledge;
        self.last_run = self.last_run.checked_add(1).unwrap_or(0).max(DONE + 1);
        self.last_run
    }
}
