//! Token buckets as the configuration writes them.

use serde::{Deserialize, Serialize};

/// One bucket. A size or a refill time of zero switches it off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    /// Bytes or operations the bucket holds.
    pub size: u64,
    /// Bytes or operations granted once, above the rate.
    #[serde(default)]
    pub one_time_burst: Option<u64>,
    /// Milliseconds in which an empty bucket fills.
    pub refill_time: u64,
}

/// Limits on one direction of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Limit in bytes.
    #[serde(default)]
    pub bandwidth: Option<TokenBucket>,
    /// Limit in operations.
    #[serde(default)]
    pub ops: Option<TokenBucket>,
}
