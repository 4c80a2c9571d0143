//! The monotonic clock, and an alarm on it that an event loop waits for.

use crate::util::source::Source;
use event_manager::EventSet;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Time since some point in the past that stays the same: CLOCK_MONOTONIC.
pub fn now() -> Duration {
    // It fails only for a clock that is not there.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default()
}

/// An alarm, off at first.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// A new alarm.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Goes off once at `time` of [`now`], at once if that is past, in place of any time before.
    pub fn set(&self, time: Duration) {
        // Zero would switch it off.
        let time = TimeSpec::from_duration(time.max(Duration::from_nanos(1)));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        self.told(self.0.set(Expiration::OneShot(time), flags));
    }

    /// Does not go off any more.
    pub fn clear(&self) {
        self.told(self.0.unset());
    }

    /// Makes the descriptor wait for the next time; call it when it was ready.
    pub fn acknowledge(&self) {
        match self.0.wait() {
            // Set anew since it was ready.
            Err(Errno::EAGAIN) => {}
            done => self.told(done),
        }
    }

    /// For the loop.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn source(&self) -> io::Result<Source> {
        Ok(Source {
            fd: self.0.as_fd().try_clone_to_owned()?,
            events: EventSet::IN,
        })
    }

    /// Only a time that cannot be is refused.
    fn told(&self, done: nix::Result<()>) {
        if let Err(e) = done {
            log::error!("a timer: {e}");
        }
    }
}
