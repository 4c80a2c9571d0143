//! What both halves of the balloon know. The configuration space is read by vCPUs, so it is made of
//! atomic words and no lock; the rest is for the loop and the API.

use resources::BalloonStats;
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
#[derive(Debug, Default)]
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

impl Shared {
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
