//! Token buckets as the configuration writes them.

use crate::Problem;
use serde::{Deserialize, Serialize};

/// One bucket. A size or a refill time of zero switches it off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    /// Bytes or operations the bucket holds.
    pub size: u64,
    /// Milliseconds in which an empty bucket fills.
    pub refill_time: u64,
    /// Bytes or operations granted once, above the rate.
    #[serde(default)]
    pub one_time_burst: Option<u64>,
}

/// Limits on one direction of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Limit in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<TokenBucket>,
    /// Limit in operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ops: Option<TokenBucket>,
}

impl RateLimiter {
    /// Whether it limits anything.
    pub fn limits(&self) -> bool {
        let on = |b: Option<TokenBucket>| b.is_some_and(|b| b.size != 0 && b.refill_time != 0);
        on(self.bandwidth) || on(self.ops)
    }
}

/// Clients send limiters that limit nothing; one that does limit is not served yet, and a guest
/// that runs without its limit would be a silent failure.
pub(crate) fn check_unlimited(
    key: String,
    limiter: Option<RateLimiter>,
    problems: &mut Vec<Problem>,
) {
    if limiter.is_some_and(|l| l.limits()) {
        problems.push(Problem::new(
            key,
            "rate limits are not supported by this version: remove the key, or set its sizes to 0",
        ));
    }
}
