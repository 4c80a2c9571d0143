//! Memory balloon (Virtio 1.2, 5.5): returns guest memory to the host, on the host's request or when the guest reports it
//! as free.
//!
//! The monitor creates one if the configuration has a balloon, and sets its size. The guest chooses the pages; addresses
//! outside its memory are ignored. A released page is free at once on the host, and reads as empty when the guest touches it
//! again. The device adds and removes no memory region.

mod handler;
mod metrics;
mod pages;
mod shared;
mod statistics;

use crate::lock;
use crate::util::metrics::MetricSet;
use crate::virtio::device::{Loops, Offer, QueueHandler, VirtioDevice};
use crate::virtio::report::{BalloonReport, Report};
use crate::virtio::section::{BuildError, FromSection};
use crate::virtio::state::{DeviceState, StateError};
use crate::virtio::update::{DeviceUpdate, UpdateError};
use handler::BalloonHandler;
pub use metrics::BalloonMetrics;
use resources::{BalloonStats, HintingStatus};
use shared::{DONE, STOP, Saved, Shared, Told};
use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use virtio_bindings::virtio_ids::VIRTIO_ID_BALLOON;

/// Version of the saved state, [`Saved`].
const STATE_VERSION: u32 = 1;
/// Entries of each queue. Linux reports free pages only if there are at least 32.
const QUEUE_SIZE: u16 = 256;
/// Balloon pages per MiB.
const PAGES_PER_MIB: u32 = 256;
/// Offset of `actual` in the configuration space, the only field that a driver writes.
const ACTUAL: u64 = 4;

/// Feature bits (section 5.5.3).
const F_STATS_VQ: u64 = 1 << 1;
const F_DEFLATE_ON_OOM: u64 = 1 << 2;
const F_FREE_PAGE_HINT: u64 = 1 << 3;
const F_PAGE_REPORTING: u64 = 1 << 5;

/// The purpose of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Inflate,
    Deflate,
    Statistics,
    Hinting,
    Reporting,
}

/// Returns the queues for the negotiated `features`. Queues of features that were not negotiated get no number. Linux
/// counts so; section 5.5.2 leaves gaps.
fn roles(features: u64) -> Vec<Role> {
    let optional = [
        (F_STATS_VQ, Role::Statistics),
        (F_FREE_PAGE_HINT, Role::Hinting),
        (F_PAGE_REPORTING, Role::Reporting),
    ];
    let mut roles = vec![Role::Inflate, Role::Deflate];
    let taken = optional
        .into_iter()
        .filter(|(feature, _)| features & feature != 0);
    roles.extend(taken.map(|(_, role)| role));
    roles
}

/// The memory balloon.
pub struct Balloon {
    /// Current configuration.
    config: resources::Balloon,
    /// True if the driver accepted hinting.
    hints: bool,
    shared: Arc<Shared>,
    metrics: Arc<BalloonMetrics>,
}

fn to_pages(mib: u32) -> Result<u32, UpdateError> {
    mib.checked_mul(PAGES_PER_MIB).ok_or(UpdateError::TooLarge)
}

impl Balloon {
    /// Creates a balloon with the size of `config`, which is requested as soon as there is a driver.
    ///
    /// # Errors
    /// [`UpdateError::TooLarge`]: the number of pages does not fit 32 bits.
    pub fn new(config: &resources::Balloon) -> Result<Self, UpdateError> {
        let shared = Shared::default();
        let target = to_pages(config.amount_mib)?;
        shared.target.store(target, Ordering::Release);
        Ok(Self {
            config: *config,
            hints: false,
            shared: Arc::new(shared),
            metrics: Arc::default(),
        })
    }

    fn features(&self) -> u64 {
        let config = &self.config;
        let optional = [
            (config.stats_polling_interval_s > 0, F_STATS_VQ),
            (config.deflate_on_oom, F_DEFLATE_ON_OOM),
            (config.free_page_hinting, F_FREE_PAGE_HINT),
            (config.free_page_reporting, F_PAGE_REPORTING),
        ];
        let offered = optional.into_iter().filter(|(there, _)| *there);
        offered.fold(0, |all, (_, feature)| all | feature)
    }

    fn set_interval(&mut self, seconds: u16) -> Result<(), UpdateError> {
        let interval = &mut self.config.stats_polling_interval_s;
        if (*interval == 0) != (seconds == 0) {
            return Err(UpdateError::StatisticsState);
        }
        *interval = seconds;
        Ok(())
    }

    fn set_command(&self, command: impl FnOnce(&mut Told) -> u32) -> Result<(), UpdateError> {
        if !self.hints {
            return Err(UpdateError::Unsupported);
        }
        let command = command(&mut lock(&self.shared.told));
        self.shared.command.store(command, Ordering::Release);
        Ok(())
    }

    fn statistics(&self) -> BalloonStats {
        let target = self.shared.target.load(Ordering::Acquire);
        let actual = self.shared.actual.load(Ordering::Acquire);
        BalloonStats {
            target_pages: target,
            actual_pages: actual,
            target_mib: target / PAGES_PER_MIB,
            actual_mib: actual / PAGES_PER_MIB,
            ..lock(&self.shared.told).statistics
        }
    }

    fn hinting(&self) -> HintingStatus {
        HintingStatus {
            host_cmd: self.shared.command.load(Ordering::Acquire),
            guest_cmd: lock(&self.shared.told).command,
        }
    }
}

impl FromSection for Balloon {
    type Section = resources::Balloon;
    type Lent = ();
    type Metrics = BalloonMetrics;

    fn name(_section: &Self::Section) -> String {
        "balloon".into()
    }

    fn build(section: &Self::Section, key: &str, (): ()) -> Result<Self, BuildError> {
        Self::new(section).map_err(BuildError::configuration(format!("{key}.amount_mib")))
    }
}

impl VirtioDevice for Balloon {
    fn offer(&self) -> Offer {
        let features = self.features();
        Offer {
            id: VIRTIO_ID_BALLOON,
            features,
            queue_sizes: vec![QUEUE_SIZE; roles(features).len()],
            loops: Loops::Shared,
        }
    }

    fn config(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.shared.config().to_vec())
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        match (offset, <[u8; 4]>::try_from(data)) {
            (ACTUAL, Ok(actual)) => {
                let actual = u32::from_le_bytes(actual);
                self.shared.actual.store(actual, Ordering::Release);
            }
            _ => log::debug!("balloon: ignored a write to the configuration space at {offset:#x}"),
        }
    }

    fn start(&mut self, features: u64) -> io::Result<Box<dyn QueueHandler>> {
        self.hints = features & F_FREE_PAGE_HINT != 0;
        Ok(Box::new(BalloonHandler::new(
            roles(features),
            Duration::from_secs(self.config.stats_polling_interval_s.into()),
            self.shared.clone(),
            self.metrics.clone(),
        )?))
    }

    fn start_failed(&mut self) {
        self.metrics.activate_fails.increment();
    }

    fn reset(&mut self) {
        self.hints = false;
        self.shared.actual.store(0, Ordering::Release);
        self.shared.command.store(STOP, Ordering::Release);
        let mut told = lock(&self.shared.told);
        told.command = None;
        told.statistics = BalloonStats::default();
    }

    fn update(&mut self, change: DeviceUpdate) -> Result<(), UpdateError> {
        match change {
            DeviceUpdate::BalloonTarget { mib } => {
                self.shared.target.store(to_pages(mib)?, Ordering::Release);
                self.config.amount_mib = mib;
                Ok(())
            }
            DeviceUpdate::StatisticsInterval { seconds } => self.set_interval(seconds),
            DeviceUpdate::HintingStart {
                acknowledge_on_stop,
            } => self.set_command(|told| told.start_run(acknowledge_on_stop)),
            DeviceUpdate::HintingStop => self.set_command(|_| DONE),
            _ => Err(UpdateError::Unsupported),
        }
    }

    fn metrics(&self) -> Option<Arc<dyn MetricSet>> {
        Some(self.metrics.clone())
    }

    fn report(&self) -> Report {
        let config = self.config;
        Report::Balloon(BalloonReport {
            config,
            statistics: (config.stats_polling_interval_s > 0).then(|| self.statistics()),
            hinting: config.free_page_hinting.then(|| self.hinting()),
        })
    }

    fn save(&self) -> DeviceState {
        DeviceState::encode(STATE_VERSION, &self.shared.save())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let saved: Saved = state.decode(STATE_VERSION)?;
        self.config.amount_mib = saved.target / PAGES_PER_MIB;
        self.shared.restore(saved);
        Ok(())
    }
}

#[cfg(test)]
#[path = "balloon_test.rs"]
mod balloon_test;
