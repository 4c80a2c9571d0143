//! Token buckets on bytes and operations. Time is an input, so that a test runs on its own clock;
//! who waits for a deadline is its user.
//!
//! A bucket holds up to its size and fills evenly, whole in its refill time. Levels are whole
//! tokens with the remainder kept, so that no rate drifts. What may not pass now is told
//! exactly when it may: there is no fixed pause.

use resources::TokenBucket;
use std::time::Duration;

/// One bucket. Its unit, bytes or operations, is its user's.
#[derive(Clone, Debug)]
pub struct Bucket {
    size: u64,
    /// Nanoseconds in which `size` tokens come.
    refill: u64,
    /// Tokens granted once; spent first, never refilled.
    burst: u64,
    /// Tokens at `filled`; below zero after a request larger than the bucket.
    level: i128,
    /// Part of a token besides `level`, in units of 1/`refill`.
    part: u64,
    filled: Duration,
}

impl Bucket {
    /// A full bucket at `now`; `None` if the configuration switches it off.
    pub fn new(config: &TokenBucket, now: Duration) -> Option<Self> {
        if config.size == 0 || config.refill_time == 0 {
            return None;
        }
        Some(Self {
            size: config.size,
            refill: config.refill_time.saturating_mul(1_000_000),
            burst: config.one_time_burst.unwrap_or_default(),
            level: config.size.into(),
            part: 0,
            filled: now,
        })
    }

    /// Takes `tokens`.
    ///
    /// A request larger than the bucket passes when the bucket is full, and leaves a debt: the average holds.
    ///
    /// # Errors
    /// The time at which it will pass, if none is taken until then; nothing was taken.
    pub fn take(&mut self, tokens: u64, now: Duration) -> Result<(), Duration> {
        self.check(tokens, now)?;
        self.pay(tokens);
        Ok(())
    }

    fn check(&mut self, tokens: u64, now: Duration) -> Result<(), Duration> {
        self.fill(now);
        let needed = tokens.saturating_sub(self.burst).min(self.size);
        let missing = i128::from(needed) - self.level;
        if needed == 0 || missing <= 0 {
            return Ok(());
        }
        // Rounded up, so that the tokens are there when the time is.
        let missing = missing.unsigned_abs().saturating_mul(self.refill.into());
        let wait = missing
            .saturating_sub(self.part.into())
            .div_ceil(self.size.into());
        let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
        Err(self.filled.saturating_add(wait))
    }

    fn pay(&mut self, tokens: u64) {
        let from_burst = tokens.min(self.burst);
        self.burst -= from_burst;
        self.level -= i128::from(tokens - from_burst);
    }

    fn fill(&mut self, now: Duration) {
        // A clock that stands still or goes back gives nothing.
        let elapsed = now.saturating_sub(self.filled).as_nanos();
        let elapsed = u64::try_from(elapsed).unwrap_or(u64::MAX);
        self.filled = self.filled.max(now);
        let refill = u128::from(self.refill);
        let parts = u128::from(elapsed) * u128::from(self.size) + u128::from(self.part);
        let tokens = i128::try_from(parts / refill).unwrap_or(i128::MAX);
        self.level = self.level.saturating_add(tokens);
        self.part = u64::try_from(parts % refill).unwrap_or_default();
        if self.level >= i128::from(self.size) {
            (self.level, self.part) = (self.size.into(), 0);
        }
    }
}

/// Limits on what goes one way through a device.
#[derive(Clone, Debug, Default)]
pub struct RateLimiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl RateLimiter {
    /// Full buckets at `now`, as `config` has them.
    pub fn new(config: &resources::RateLimiter, now: Duration) -> Self {
        let mut limiter = Self::default();
        limiter.update(config, now);
        limiter
    }

    /// Replaces the buckets that `change` names by fresh ones, or switches them off; an absent one
    /// goes on as it is.
    pub fn update(&mut self, change: &resources::RateLimiter, now: Duration) {
        if let Some(bandwidth) = &change.bandwidth {
            self.bytes = Bucket::new(bandwidth, now);
        }
        if let Some(ops) = &change.ops {
            self.operations = Bucket::new(ops, now);
        }
    }

    /// Whether it limits anything.
    pub fn limits(&self) -> bool {
        self.bytes.is_some() || self.operations.is_some()
    }

    /// Takes one operation of `bytes`.
    ///
    /// # Errors
    /// The time at which to ask again; nothing was taken.
    pub fn take(&mut self, bytes: u64, now: Duration) -> Result<(), Duration> {
        let mut until = None;
        for (bucket, tokens) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(Err(time)) = bucket.as_mut().map(|bucket| bucket.check(tokens, now)) {
                until = until.max(Some(time));
            }
        }
        if let Some(time) = until {
            return Err(time);
        }
        for (bucket, tokens) in [(&mut self.bytes, bytes), (&mut self.operations, 1)] {
            if let Some(bucket) = bucket {
                bucket.pay(tokens);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "rate_limiter_test.rs"]
mod rate_limiter_test;
