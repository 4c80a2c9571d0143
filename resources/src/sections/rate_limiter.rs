//! Token buckets in the configuration.

use serde::{Deserialize, Serialize};

/// A token bucket. A size or refill time of zero disables it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenBucket {
    /// Size in bytes or operations.
    pub size: u64,
    /// Additional bytes or operations, granted once.
    #[serde(default)]
    pub one_time_burst: Option<u64>,
    /// Time in milliseconds in which an empty bucket refills.
    pub refill_time: u64,
}

/// Limits of one direction of a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RateLimiter {
    /// Limit on bytes.
    #[serde(default)]
    pub bandwidth: Option<TokenBucket>,
    /// Limit on operations.
    #[serde(default)]
    pub ops: Option<TokenBucket>,
}
