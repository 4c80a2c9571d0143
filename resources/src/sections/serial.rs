//! The `serial` section: the console.

use crate::sections::rate_limiter::TokenBucket;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The `serial` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Serial {
    /// Path of a file or FIFO for the guest's output; standard output if absent.
    #[serde(default)]
    pub serial_out_path: Option<PathBuf>,
    /// Limit on the guest's output in bytes. Output beyond the limit is lost, as on a real line.
    #[serde(default)]
    pub rate_limiter: Option<TokenBucket>,
    /// Bantam's own: path of a Unix socket to attach to the console, e.g. with `socat - UNIX:PATH`. A client gets the
    /// latest output first, and can type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<PathBuf>,
}
