//! The source of randomness.

use crate::sections::rate_limiter::RateLimiter;
use serde::{Deserialize, Serialize};

/// The `entropy` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entropy {
    /// Limits.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
}
