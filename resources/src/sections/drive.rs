//! The `drives` section.

use crate::check::null::null_as_default;
use crate::check::problem::{Problem, check_id, check_unique};
use crate::pool::{check_pool_name, check_volume_name};
use crate::sections::rate_limiter::RateLimiter;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The cache mode of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CacheType {
    /// The disk offers no flush. Data that the guest considers written is lost if the host fails.
    #[default]
    Unsafe,
    /// The disk offers a flush, which reaches the disk of the host.
    Writeback,
}

/// The way the image is read and written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum IoEngine {
    /// One request at a time.
    #[default]
    Sync,
    /// Several requests at a time.
    Async,
}

/// One entry of `drives`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Drive {
    /// Id of the drive in the API: letters, digits and `_`. Its first 20 bytes are the disk's serial number in the guest.
    pub drive_id: String,
    /// Partition that holds the root file system; the whole disk if absent.
    #[serde(default)]
    pub partuuid: Option<String>,
    /// True if the drive holds the root file system.
    pub is_root_device: bool,
    /// Cache mode.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cache_type: CacheType,
    /// True if the guest must not write.
    #[serde(default, deserialize_with = "null_as_default")]
    pub is_read_only: bool,
    /// Path of a raw image file or block device.
    #[serde(default)]
    pub path_on_host: Option<PathBuf>,
    /// Rate limits.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
    /// I/O engine.
    #[serde(default, deserialize_with = "null_as_default")]
    pub io_engine: IoEngine,
    /// Path of a vhost-user socket.
    #[serde(default)]
    pub socket: Option<PathBuf>,
    /// True to offer discard, which returns the space of discarded sectors to the host.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub discard: bool,
    /// Bantam's own, for the jailer: size in MiB of an image to create if it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size_mib: Option<u64>,
    /// Bantam's own, for the jailer: file to copy to the image if it does not exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PathBuf>,
    /// Bantam's own, for the jailer: storage pool in which [`Self::path_on_host`] names a volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
}

/// Largest image that the jailer creates: 64 TiB. Common ext4 and XFS hosts allow larger files.
const MAX_SIZE_MIB: u64 = 64 << 20;

impl Drive {
    fn check(&self, key: &str, problems: &mut Vec<Problem>) {
        check_id(&format!("{key}.drive_id"), &self.drive_id, problems);
        let mut wrong = |field: &str, message: &str| {
            problems.push(Problem::new(format!("{key}.{field}"), message));
        };
        match &self.path_on_host {
            _ if self.socket.is_some() => wrong(
                "socket",
                "vhost-user drives are not supported by this version: use path_on_host",
            ),
            None => wrong(
                "path_on_host",
                "is missing: name a raw image or a block device",
            ),
            Some(path) if path.as_os_str().is_empty() => {
                wrong(
                    "path_on_host",
                    "is empty: name a raw image or a block device",
                );
            }
            Some(_) => {}
        }
        if let Some(pool) = &self.pool {
            if let Err(message) = check_pool_name(pool) {
                wrong("pool", &message);
            }
            let volume = self.path_on_host.as_ref().and_then(|path| path.to_str());
            if let Some(Err(message)) = volume.filter(|v| !v.is_empty()).map(check_volume_name) {
                wrong(
                    "path_on_host",
                    &format!("with `pool`, it names a volume: {message}"),
                );
            }
        }
        if self
            .size_mib
            .is_some_and(|size| size == 0 || size > MAX_SIZE_MIB)
        {
            wrong("size_mib", "must be from 1 to 67108864 (64 TiB)");
        }
        if self.partuuid.is_some() && !self.is_root_device {
            wrong(
                "partuuid",
                "belongs to the root device: set is_root_device or remove it",
            );
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self
            .partuuid
            .as_ref()
            .is_some_and(|id| id.is_empty() || !id.chars().all(plain))
        {
            wrong(
                "partuuid",
                "must be letters, digits and `-`, as `blkid` prints it",
            );
        }
    }
}

/// Checks the whole section.
pub(crate) fn check_drives(drives: &[Drive], problems: &mut Vec<Problem>) {
    for (i, drive) in drives.iter().enumerate() {
        drive.check(&format!("drives[{i}]"), problems);
    }
    let ids = drives.iter().map(|d| d.drive_id.as_str());
    check_unique("drives", "drive_id", ids, problems);
    let mut roots = drives.iter().enumerate().filter(|(_, d)| d.is_root_device);
    if let (Some((first, _)), Some((second, _))) = (roots.next(), roots.next()) {
        problems.push(Problem::new(
            format!("drives[{second}].is_root_device"),
            format!("only one drive can be the root device, and drives[{first}] is"),
        ));
    }
}
