//! Limits how fast a guest that reboots in place may start again: at once, unless it reboots over and over.
//!
//! This is arithmetic on times that the controller passes in. Nothing waits here.

use std::collections::VecDeque;
use std::time::Duration;

/// Restarts without a wait: a guest that installs itself, or tests its own reboot a few times, is not delayed.
pub(super) const BURST: usize = 5;
/// Running time in which [`BURST`] restarts are too many. The fastest Linux needs seconds to boot and reboot on purpose, so
/// only a guest that never comes up is that fast.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// First wait: long enough to make a loop of a millisecond harmless, and short enough for an operator not to notice.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
/// Longest wait: a guest whose trouble is over comes back within a minute.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The restarts of one guest. Times are of a monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Brake {
    /// Time of the last start.
    started: Duration,
    /// Running time since the first start. Waiting does not count, or each wait would excuse the next restart.
    ran: Duration,
    /// Running time at each of the last restarts, at most [`BURST`].
    restarts: VecDeque<Duration>,
    /// The last wait; zero if there was none.
    waited: Duration,
}

impl Brake {
    /// Records a start at `now`.
    pub(super) fn started(&mut self, now: Duration) {
        self.started = now;
    }

    /// Records a reboot at `now`. Returns how long the restart must wait.
    pub(super) fn rebooted(&mut self, now: Duration) -> Duration {
        self.ran = self.ran.saturating_add(now.saturating_sub(self.started));
        let burst = self.restarts.len() >= BURST;
        let first = self.restarts.front().copied().unwrap_or_default();
        let quick = burst && self.ran.saturating_sub(first) < WINDOW;
        self.waited = match quick {
            true => (self.waited * 2).clamp(FIRST_WAIT, LONGEST_WAIT),
            false => Duration::ZERO,
        };
        if burst {
            self.restarts.pop_front();
        }
        self.restarts.push_back(self.ran);
        self.waited
    }
}

#[cfg(test)]
#[path = "brake_test.rs"]
mod brake_test;
