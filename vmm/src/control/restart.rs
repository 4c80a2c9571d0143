//! Where a guest that reboots is between its two machines.

use super::brake::Brake;
use crate::event_loop::Alarm;
use devices::util::timer::now;
use std::time::Duration;

/// Where the guest is on its way from one machine to the next.
#[derive(Default)]
pub(super) struct Restart {
    pub(super) brake: Brake,
    /// Its machine stands still until then.
    pub(super) waits: Option<(Duration, Alarm)>,
    /// Its machine is gone, and the next is to be built.
    pub(super) due: bool,
    /// The next is to be held, as the one before was.
    pub(super) stays_paused: bool,
}

impl Restart {
    /// Whether the next machine is to be built; asked once.
    pub(super) fn is_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }

    /// There is a machine that can run; returns whether it is to be held.
    pub(super) fn started(&mut self) -> bool {
        self.brake.started(now());
        std::mem::take(&mut self.stays_paused)
    }
}
