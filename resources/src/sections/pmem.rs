//! The `pmem` section: persistent memory backed by a file.

use crate::check::problem::{Problem, check_id, check_unique};
use crate::sections::rate_limiter::RateLimiter;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// One entry of `pmem`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pmem {
    /// Id of the device in the API: letters, digits and `_`.
    pub id: String,
    /// Path of the file.
    pub path_on_host: PathBuf,
    /// True if the device holds the root file system.
    #[serde(default)]
    pub root_device: bool,
    /// True if the guest must not write.
    #[serde(default)]
    pub read_only: bool,
    /// Limits of flushes.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
}

/// Checks the whole section.
pub(crate) fn check_pmem(devices: &[Pmem], problems: &mut Vec<Problem>) {
    for (i, device) in devices.iter().enumerate() {
        check_id(&format!("pmem[{i}].id"), &device.id, problems);
    }
    check_unique(
        "pmem",
        "id",
        devices.iter().map(|d| d.id.as_str()),
        problems,
    );
}
