//! A rate limiter in use: shared by the two halves of a device, so that a pause does not fill its
//! buckets, with the alarm that wakes the half that waits.

use crate::lock;
use crate::util::rate_limiter::{Levels, RateLimiter};
use crate::util::source::Source;
use crate::util::timer::{Timer, now};
use crate::virtio::state::StateError;
use std::io;
use std::sync::{Arc, Mutex};

/// The limits of a device, kept by its driver-facing half.
#[derive(Clone, Debug, Default)]
pub struct Limits(Arc<Mutex<RateLimiter>>);

impl Limits {
    /// As `config` has them, with full buckets.
    pub fn new(config: &resources::RateLimiter) -> Self {
        Self(Arc::new(Mutex::new(RateLimiter::new(config, now()))))
    }

    /// Changes them; a running handler learns of limits where there were none when it starts anew.
    pub fn update(&self, change: &resources::RateLimiter) {
        lock(&self.0).update(change, now());
    }

    /// How full the buckets are.
    pub fn levels(&self) -> Levels {
        lock(&self.0).levels(now())
    }

    /// Has the buckets as full as they were saved.
    ///
    /// # Errors
    /// [`StateError::Value`]: no bucket can be so; all is as it was.
    pub fn set_levels(&self, levels: &Levels) -> Result<(), StateError> {
        if !levels.can_be() {
            return Err(StateError::Value("rate limiter"));
        }
        lock(&self.0).set_levels(levels, now());
        Ok(())
    }

    /// The handler's part, with an alarm if there are limits.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn throttle(&self) -> io::Result<Throttle> {
        let limited = lock(&self.0).limits();
        let timer = limited.then(Timer::new).transpose()?;
        Ok(Throttle(timer.map(|timer| (self.0.clone(), timer))))
    }
}

/// The limits as a queue handler asks them.
#[derive(Debug, Default)]
pub struct Throttle(Option<(Arc<Mutex<RateLimiter>>, Timer)>);

impl Throttle {
    /// Whether an operation of `bytes` may go now. If not, the alarm goes off when it may.
    pub fn admits(&self, bytes: usize) -> bool {
        let Some((limiter, timer)) = &self.0 else {
            return true;
        };
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        match lock(limiter).take(bytes, now()) {
            Ok(()) => true,
            Err(until) => {
                timer.set(until);
                false
            }
        }
    }

    /// Whether there are limits, and so an alarm.
    pub fn limits(&self) -> bool {
        self.0.is_some()
    }

    /// The alarm, if there are limits.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn source(&self) -> io::Result<Option<Source>> {
        let timer = self.0.as_ref().map(|(_, timer)| timer);
        timer.map(Timer::source).transpose()
    }

    /// The alarm went off.
    pub fn acknowledge(&self) {
        if let Some((_, timer)) = &self.0 {
            timer.acknowledge();
        }
    }
}
