//! A rate limiter in use. Both halves of a device share it, so that a pause does not refill its buckets; a timer wakes
//! the half that waits.

use crate::lock;
use crate::util::rate_limiter::{Levels, RateLimiter};
use crate::util::source::Source;
use crate::util::timer::{Timer, now};
use crate::virtio::state::StateError;
use std::io;
use std::sync::{Arc, Mutex};

/// The rate limiter of a device, owned by its driver-facing half.
#[derive(Clone, Debug, Default)]
pub struct Limits(Arc<Mutex<RateLimiter>>);

impl Limits {
    /// Creates the limiter of `config` with full buckets.
    pub fn new(config: &resources::RateLimiter) -> Self {
        Self(Arc::new(Mutex::new(RateLimiter::new(config, now()))))
    }

    /// Changes the limits. A running handler without limits notices new ones when it starts again.
    pub fn update(&self, change: &resources::RateLimiter) {
        lock(&self.0).update(change, now());
    }

    /// Returns the bucket levels for a snapshot.
    pub fn levels(&self) -> Levels {
        lock(&self.0).levels(now())
    }

    /// Restores saved bucket levels.
    ///
    /// # Errors
    /// [`StateError::Value`]: no bucket can have such a level. Nothing was changed.
    pub fn set_levels(&self, levels: &Levels) -> Result<(), StateError> {
        if !levels.can_be() {
            return Err(StateError::Value("rate limiter"));
        }
        lock(&self.0).set_levels(levels, now());
        Ok(())
    }

    /// Returns the handler's half, with a timer if there are limits.
    ///
    /// # Errors
    /// The process has no free descriptor.
    pub fn throttle(&self) -> io::Result<Throttle> {
        let limited = lock(&self.0).limits();
        let timer = limited.then(Timer::new).transpose()?;
        Ok(Throttle(timer.map(|timer| (self.0.clone(), timer))))
    }
}

/// The rate limiter as a queue handler uses it.
#[derive(Debug, Default)]
pub struct Throttle(Option<(Arc<Mutex<RateLimiter>>, Timer)>);

impl Throttle {
    /// Takes one operation of `bytes`. Returns false if it must wait; the timer then expires when it may proceed.
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

    /// Returns true if there are limits, and so a timer.
    pub fn limits(&self) -> bool {
        self.0.is_some()
    }

    /// Returns the timer's source if there are limits.
    ///
    /// # Errors
    /// The process has no free descriptor.
    pub fn source(&self) -> io::Result<Option<Source>> {
        let timer = self.0.as_ref().map(|(_, timer)| timer);
        timer.map(Timer::source).transpose()
    }

    /// Clears the expired timer.
    pub fn acknowledge(&self) {
        if let Some((_, timer)) = &self.0 {
            timer.acknowledge();
        }
    }
}
