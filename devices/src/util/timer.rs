//! The monotonic clock, and a timer on it for event loops.

use crate::util::source::Source;
use event_manager::EventSet;
use nix::errno::Errno;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// Returns the time of CLOCK_MONOTONIC.
pub fn now() -> Duration {
    // clock_gettime fails only for an unknown clock.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
        .map(Duration::from)
        .unwrap_or_default()
}

/// A timer, initially disarmed.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// Creates a timer.
    ///
    /// # Errors
    /// The process has no free descriptor.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self(TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?))
    }

    /// Arms the timer for `time` of [`now`], in place of an earlier setting. It expires at once if `time` is past.
    pub fn set(&self, time: Duration) {
        // Zero would disarm the timer.
        let time = TimeSpec::from_duration(time.max(Duration::from_nanos(1)));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME;
        self.told(self.0.set(Expiration::OneShot(time), flags));
    }

    /// Disarms the timer.
    pub fn clear(&self) {
        self.told(self.0.unset());
    }

    /// Clears the expiry, so that the descriptor is ready again at the next one.
    pub fn acknowledge(&self) {
        match self.0.wait() {
            // The timer was set again after it expired.
            Err(Errno::EAGAIN) => {}
            done => self.told(done),
        }
    }

    /// Returns the source for an event loop.
    ///
    /// # Errors
    /// The process has no free descriptor.
    pub fn source(&self) -> io::Result<Source> {
        Ok(Source {
            fd: self.0.as_fd().try_clone_to_owned()?,
            events: EventSet::IN,
        })
    }

    /// Logs a failure; the kernel refuses invalid times only.
    fn told(&self, done: nix::Result<()>) {
        if let Err(e) = done {
            log::error!("a timer: {e}");
        }
    }
}
