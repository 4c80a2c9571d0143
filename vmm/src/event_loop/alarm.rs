//! Makes the main thread's loop come round at a time that the controller waits for.

use super::handle::{Added, add};
use devices::util::timer::Timer;
use devices::virtio::worker::Loop;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// An alarm that was set; it costs descriptors until it is removed.
pub struct Alarm(Added);

impl Alarm {
    /// Goes off at `time` of [`devices::util::timer::now`].
    ///
    /// # Errors
    /// No more descriptors.
    pub fn at(time: Duration, event_loop: &Loop) -> io::Result<Self> {
        let timer = Timer::new()?;
        timer.set(time);
        let watched = timer.source()?.fd;
        let bell = Box::new(Bell { timer, watched });
        Ok(Self(add(event_loop, bell)))
    }

    /// Takes it off the loop.
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

    /// That the loop turned is all there is to it.
    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        self.timer.acknowledge();
    }
}
