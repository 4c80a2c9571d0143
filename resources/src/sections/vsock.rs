//! The `vsock` section: streams between guest and host.

use crate::check::problem::Problem;
use serde::{Deserialize, Serialize};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Longest path of a Unix socket in bytes: `sun_path` without its terminator.
const MAX_UDS_PATH: usize = 107;

/// The `vsock` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Vsock {
    /// CID of the guest, at least 3. 2 is accepted because Firecracker's clients write it.
    pub guest_cid: u32,
    /// Path of the Unix socket at which host clients connect. The guest connects to `<uds_path>_<port>`.
    pub uds_path: PathBuf,
    /// Deprecated and ignored: a guest has one vsock device.
    #[serde(default, skip_serializing)]
    pub vsock_id: Option<String>,
}

impl Vsock {
    /// Reports invalid values.
    pub fn check(&self, problems: &mut Vec<Problem>) {
        // Virtio 1.2, section 5.10.4, reserves these.
        if matches!(self.guest_cid, 0 | 1 | u32::MAX) {
            let message = "is reserved: use a number from 3 to 4294967294";
            problems.push(Problem::new("vsock.guest_cid", message));
        }
        let len = self.uds_path.as_os_str().as_bytes().len();
        if len == 0 {
            let message = "is empty: name the Unix socket to be made";
            problems.push(Problem::new("vsock.uds_path", message));
        } else if len > MAX_UDS_PATH {
            let message = format!(
                "is {len} bytes long, but the path of a Unix socket has at most {MAX_UDS_PATH}: use a shorter one"
            );
            problems.push(Problem::new("vsock.uds_path", message));
        }
    }
}

#[cfg(test)]
#[path = "vsock_test.rs"]
mod vsock_test;
