//! State that both halves of the balloon share. vCPUs read the configuration space, so it consists of atomic words without a
//! lock. The loop and the API use the rest.

use crate::lock;
use resources::BalloonStats;
use serde::{Deserialize, Serialize};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Bytes of `struct virtio_balloon_config` (section 5.5.4).
const CONFIG: usize = 16;

/// Command that ends a hinting run, from either side.
pub(super) const STOP: u32 = 0;
/// Command that returns the hinted pages to the guest.
pub(super) const DONE: u32 = 1;

/// The configuration space and the guest's reports.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// Requested size in pages.
    pub target: AtomicU32,
    /// Current size in pages, as the driver reports it.
    pub actual: AtomicU32,
    /// The host's hinting command.
    pub command: AtomicU32,
    pub told: Mutex<Told>,
}

/// The guest's reports and the pending answer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Told {
    /// Latest statistics, without sizes.
    pub statistics: BalloonStats,
    /// Last hinting command that the guest answered.
    pub command: Option<u32>,
    /// Number of the last hinting run.
    pub last_run: u32,
    /// True if a run that the guest has ended must be acknowledged by DONE.
    pub acknowledge: bool,
}

/// Saved state. Every value is valid: the guest chooses some, and all are plain numbers.
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
        // The last field, poison_val, belongs to a feature that is not offered.
        let words = [&self.target, &self.actual, &self.command];
        for (field, word) in config.chunks_exact_mut(4).zip(words) {
            field.copy_from_slice(&word.load(Ordering::Acquire).to_le_bytes());
        }
        config
    }

    /// Returns the command of the current hinting run; `None` if there is no run.
    pub(super) fn run(&self) -> Option<u32> {
        let command = self.command.load(Ordering::Acquire);
        (command != STOP && command != DONE).then_some(command)
    }
}

impl Told {
    /// Returns the number of a new run, which differs from the commands and from the last run.
    pub(super) fn start_run(&mut self, acknowledge: bool) -> u32 {
        self.acknowledge = acknowledge;
        self.last_run = self.last_run.checked_add(1).unwrap_or(0).max(DONE + 1);
        self.last_run
    }
}
