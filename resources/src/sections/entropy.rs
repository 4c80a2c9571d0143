//! The `entropy` section: a source of random bytes for the guest.

use crate::sections::rate_limiter::RateLimiter;
use serde::{Deserialize, Serialize};

/// The `entropy` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entropy {
    /// Rate limits.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
}
