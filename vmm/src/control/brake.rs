//! How soon a guest that rebooted may start again in place: at once, unless it does so over and over.
//!
//! Pure arithmetic on the times that the controller gives it; it waits for nothing itself.

use std::collections::VecDeque;
use std::time::Duration;

/// Restarts that are free: a guest that installs itself, or tries its own reboot a few times, is not held up.
pub(super) const BURST: usize = 5;
/// Time of running in which [`BURST`] restarts are too many. The quickest Linux needs seconds to come up and
/// reboot on purpose, so that only one that never comes up is as quick as that.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// What the first restart that waits does: enough to make a loop of a millisecond harmless, and not
/// noticed by whoever looks after the guest.
pub(super) const FIRST_WAIT: Duration = Duration::from_secs(1);
/// The longest wait: a guest whose trouble is over comes back within a minute of it.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// The restarts of one guest. Times are of a clock that never goes back.
#[derive(Debug, Default)]
pub(super) struct Brake {
    /// When the guest was last started.
    started: Duration,
    /// How long it ran in all its lives so far: waiting does not count, or it would be its own excuse.
    ran: Duration,
    /// How long it had run at each of the last restarts, at most [`BURST`].
    restarts: VecDeque<Duration>,
    /// What was last waited; zero if nothing was.
    waited: Duration,
}

impl Brake {
    /// The guest runs from `now` on.
    pub(super) fn started(&mut self, now: Duration) {
        self.started = now;
    }

    /// The guest reboots at `now`: how long its restart is to wait.
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
