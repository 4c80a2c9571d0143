//! Token buckets for bytes and operations. Callers pass the time, so that tests have a clock of their own, and callers
//! wait for deadlines.
//!
//! A bucket holds at most its size and refills evenly within its refill time. Levels are whole tokens plus an exact
//! remainder, so that rates do not drift. A refused request gets the exact time at which it will pass.
//! exactly when it may: there is no fixed pause.

use resources::TokenBucket;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Largest debt of a saved bucket, which exceeds that of any single request.
const MAX_DEBT: i64 = 1 << 33;

/// Saved level of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    /// Tokens. Negative after a request larger than the bucket.
    tokens: i64,
    /// Fraction of the next token.
    part: u64,
    /// Tokens left of the one-time burst.
    burst: u64,
}

/// Bucket levels for a snapshot. Time between save and restore refills nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    bytes: Option<Level>,
    operations: Option<Level>,
}

impl Levels {
    /// Returns false for levels that no limiter can have. Bucket sizes are not compared: a bucket takes no more than its
    /// size.
    pub fn can_be(&self) -> bool {
        let levels = [self.bytes, self.operations];
        levels
            .iter()
            .flatten()
            .all(|level| level.tokens >= -MAX_DEBT)
    }
}

/// One token bucket. A token is a byte or an operation.
#[derive(Clone, Debug)]
pub struct Bucket {
    size: u64,
    /// Time in nanoseconds in which `size` tokens refill.
    refill: u64,
    /// Tokens of the one-time burst. They are spent first and never refilled.
    burst: u64,
    /// Tokens at the time `filled`. Negative after a request larger than the bucket.
    level: i128,
    /// Fraction of a token beyond `level`, in units of 1/`refill`.
    part: u64,
    filled: Duration,
}

impl Bucket {
    /// Creates a bucket that is full at `now`. Returns `None` if the configuration disables it.
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
    /// A request larger than the bucket passes when the bucket is full. It leaves a debt, so that the average rate holds.
    ///
    /// # Errors
    /// The time at which the request will pass if nothing else is taken until then. Nothing was taken.
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
        // Rounded up, so that the tokens are available at that time.
        let missing = missing.unsigned_abs().saturating_mul(self.refill.into());
        let wait = missing
            .saturating_sub(self.part.into())
            .div_ceil(self.size.into());
        let wait = Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX));
        Err(self.filled.saturating_add(wait))
    }

    fn level(&self, now: Duration) -> Level {
        let mut filled = self.clone();
        filled.fill(now);
        Level {
            // A larger level does not limit anything.
            tokens: i64::try_from(filled.level).unwrap_or(i64::MAX),
            part: filled.part,
            burst: filled.burst,
        }
    }

    fn set_level(&mut self, level: &Level, now: Duration) {
        self.level = i128::from(level.tokens).min(self.size.into());
        self.part = level.part.min(self.refill - 1);
        self.burst = level.burst.min(self.burst);
        self.filled = now;
    }

    fn pay(&mut self, tokens: u64) {
        let from_burst = tokens.min(self.burst);
        self.burst -= from_burst;
        self.level -= i128::from(tokens - from_burst);
    }

    fn fill(&mut self, now: Duration) {
        // A clock that stops or steps back refills nothing.
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

/// Byte and operation limits of one direction of a device.
#[derive(Clone, Debug, Default)]
pub struct RateLimiter {
    bytes: Option<Bucket>,
    operations: Option<Bucket>,
}

impl RateLimiter {
    /// Creates the buckets of `config`, full at `now`.
    pub fn new(config: &resources::RateLimiter, now: Duration) -> Self {
        let mut limiter = Self::default();
        limiter.update(config, now);
        limiter
    }

    /// Replaces or disables the buckets that `change` names. A bucket that it does not name stays as it is.
    pub fn update(&mut self, change: &resources::RateLimiter, now: Duration) {
        if let Some(bandwidth) = &change.bandwidth {
            self.bytes = Bucket::new(bandwidth, now);
        }
        if let Some(ops) = &change.ops {
            self.operations = Bucket::new(ops, now);
        }
    }

    /// Returns the levels of the buckets at `now`.
    pub fn levels(&self, now: Duration) -> Levels {
        let level = |bucket: &Option<Bucket>| bucket.as_ref().map(|bucket| bucket.level(now));
        Levels {
            bytes: level(&self.bytes),
            operations: level(&self.operations),
        }
    }

    /// Sets the levels of the buckets, at most to their sizes. `levels` must be [possible](Levels::can_be). A bucket
    /// without a level in `levels` stays as it is.
    pub fn set_levels(&mut self, levels: &Levels, now: Duration) {
        let pairs = [
            (&mut self.bytes, &levels.bytes),
            (&mut self.operations, &levels.operations),
        ];
        for (bucket, level) in pairs {
            if let (Some(bucket), Some(level)) = (bucket, level) {
                bucket.set_level(level, now);
            }
        }
    }

    /// Returns true if a bucket limits anything.
    pub fn limits(&self) -> bool {
        self.bytes.is_some() || self.operations.is_some()
    }

    /// Takes one operation of `bytes`.
    ///
    /// # Errors
    /// The time at which to try again. Nothing was taken.
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
