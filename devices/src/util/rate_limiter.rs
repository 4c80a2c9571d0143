//! Token buckets on bytes and operations. Time is an input, so that a test runs on its own clock;
//! who waits for a deadline is its user.
//!
//! A bucket holds up to its size and fills evenly, whole in its refill time. Levels are whole
//! tokens with the remainder kept, so that no rate drifts. What may not pass now is told
//! exactly when it may: there is no fixed pause.

use resources::TokenBucket;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Deepest debt that a saved bucket may have: more than any one request is.
const MAX_DEBT: i64 = 1 << 33;

/// How full a bucket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Level {
    /// Tokens, fewer than none after a request larger than the bucket.
    tokens: i64,
    /// Part of a further one.
    part: u64,
    /// Left of those granted once.
    burst: u64,
}

/// How full the buckets of a limiter are, at whatever time that was: of the time since then they get
/// nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Levels {
    bytes: Option<Level>,
    operations: Option<Level>,
}

impl Levels {
    /// Whether a limiter can be so. How large its buckets are is not asked: what is too much for them, they
    /// do not take.
    pub fn can_be(&self) -> bool {
        let levels = [self.bytes, self.operations];
        levels
            .iter()
            .flatten()
            .all(|level| level.tokens >= -MAX_DEBT)
    }
}

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

    fn level(&self, now: Duration) -> Level {
        let mut filled = self.clone();
        filled.fill(now);
        Level {
            // A bucket of more than that is none that limits.
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

    /// How full its buckets are.
    pub fn levels(&self, now: Duration) -> Levels {
        let level = |bucket: &Option<Bucket>| bucket.as_ref().map(|bucket| bucket.level(now));
        Levels {
            bytes: level(&self.bytes),
            operations: level(&self.operations),
        }
    }

    /// Has its buckets as full as `levels` says, which [`Levels::can_be`], and no fuller than they are large. A
    /// bucket of which it does not speak stays as it is.
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
