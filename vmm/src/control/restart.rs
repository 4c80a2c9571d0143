//! The state of a restart in place.

use super::brake::Brake;
use crate::event_loop::Alarm;
use devices::util::timer::now;
use std::time::Duration;

/// The guest's way from one machine to the next.
#[derive(Default)]
pub(super) struct Restart {
    pub(super) brake: Brake,
    /// End of the wait and its alarm, while the old machine is kept.
    pub(super) waits: Option<(Duration, Alarm)>,
    /// Whether the old machine is gone and the next must be built.
    pub(super) due: bool,
    /// Whether the next machine must stay paused, as the old one was.
    pub(super) stays_paused: bool,
}

impl Restart {
    /// Returns whether the next machine must be built, once.
    pub(super) fn is_due(&mut self) -> bool {
        std::mem::take(&mut self.due)
    }

    /// Records a start. Returns whether the machine must stay paused.
    pub(super) fn started(&mut self) -> bool {
        self.brake.started(now());
        std::mem::take(&mut self.stays_paused)
    }
}
