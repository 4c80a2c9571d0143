//! Wakes the event loop of the main thread at a given time.

use super::handle::{Added, add};
use devices::util::timer::Timer;
use devices::virtio::worker::Loop;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// An alarm. It holds descriptors until it is removed.
pub struct Alarm(Added);

impl Alarm {
    /// Sets an alarm for `time`, a value of [`devices::util::timer::now`].
    ///
    /// # Errors
    /// The host has no more descriptors.
    pub fn at(time: Duration, event_loop: &Loop) -> io::Result<Self> {
        let timer = Timer::new()?;
        timer.set(time);
        let watched = timer.source()?.fd;
        let bell = Box::new(Bell { timer, watched });
        Ok(Self(add(event_loop, bell)))
    }

    /// Removes the alarm from the loop.
    pub fn remove(self) {
        self.0.remove();
    }
}

struct Bell {
    timer: Timer,
    watched: OwnedFd,
}

impl MutEventSubscriber for Bell {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(e) = ops.add(Events::new(&self.watched, EventSet::IN)) {
            log::error!("cannot watch an alarm: {e}");
        }
    }

    /// Does nothing but acknowledge the timer: the loop's turn is the effect.
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        self.timer.acknowledge();
    }
}
