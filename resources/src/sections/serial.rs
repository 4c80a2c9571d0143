//! The console.

use crate::sections::rate_limiter::TokenBucket;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The `serial` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// File or FIFO that gets what the guest writes; standard output if absent.
    #[serde(default)]
    pub serial_out_path: Option<PathBuf>,
    /// Limit on what the guest writes, in bytes; what is above it is lost, as on a real line.
    #[serde(default)]
    pub rate_limiter: Option<TokenBucket>,
    /// Bantam's own: a Unix socket to attach to the console, e.g. with `socat - UNIX:PATH`. Who
    /// connects gets what was written last, and types from there on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}
