//! Request bodies for snapshots, restore and fork.

use crate::config_file::VmConfig;
use crate::sections::machine::HugePages;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// The memory that a snapshot contains.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotType {
    /// All memory.
    #[default]
    Full,
    /// The pages written since the last snapshot.
    Diff,
}

/// `PUT /snapshot/create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// File for the state of the machine and its devices.
    pub snapshot_path: PathBuf,
    /// File for the memory.
    pub mem_file_path: PathBuf,
    /// Kind of snapshot.
    #[serde(default)]
    pub snapshot_type: SnapshotType,
    /// Sent by older clients. Ignored.
    #[serde(default, skip_serializing)]
    pub version: Option<String>,
}

/// The provider of restored memory pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryBackendType {
    /// The kernel, from the memory file.
    File,
    /// A page fault handler that listens at a Unix socket (userfaultfd).
    Uffd,
}

/// The source of restored memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryBackend {
    /// The provider of pages.
    pub backend_type: MemoryBackendType,
    /// Path of the memory file or of the handler's socket.
    pub backend_path: PathBuf,
}

/// Replaces the tap of an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOverride {
    /// Id of the interface.
    pub iface_id: String,
    /// Name of the new tap.
    pub host_dev_name: String,
}

/// Replaces the socket of the vsock device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockOverride {
    /// Path of the new socket.
    pub uds_path: PathBuf,
    /// Bantam's own: new CID of the guest, at least 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_cid: Option<u32>,
}

/// Bantam's own: replaces the image of a drive. The new image must have the contents of the saved one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveOverride {
    /// Id of the drive.
    pub drive_id: String,
    /// Path of the new image.
    pub path_on_host: PathBuf,
}

/// Bantam's own: one child of a fork.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkChild {
    /// Path of the socket where the child's process waits (`bantam --fork-socket`).
    pub socket: PathBuf,
    /// Resources of the child.
    #[serde(flatten)]
    pub own: Overrides,
}

/// Resources of a fork child or a restored guest that replace the saved ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Replaced taps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_overrides: Vec<NetworkOverride>,
    /// Replaced vsock socket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_override: Option<VsockOverride>,
    /// Bantam's own: replaced images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drive_overrides: Vec<DriveOverride>,
}

/// `PUT /vm/fork`, Bantam's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// The children.
    pub children: Vec<ForkChild>,
}

/// Page size behind restored memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RestoredPages {
    /// The given size.
    As(HugePages),
    /// The saved size.
    #[default]
    #[serde(with = "as_saved")]
    Snapshot,
}

mod as_saved {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("Snapshot")
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "Snapshot" => Ok(()),
            other => Err(de::Error::unknown_variant(
                other,
                &["Snapshot", "None", "Transparent", "2M"],
            )),
        }
    }
}

/// Bantam's own: prefetching of the pages that a restored guest touches first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prefetch {
    /// On or off, with the default recording time.
    Switch(bool),
    /// On, with the given recording time if nothing was recorded yet.
    Recorded(Recording),
}

/// The recording of touched pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Recording time in milliseconds, 1 to 600000.
    pub record_ms: u32,
}

/// Default recording time in milliseconds: long enough for the first requests to a guest.
const DEFAULT_RECORD_MS: u32 = 2000;
/// Longest recording time in milliseconds (ten minutes).
const MAX_RECORD_MS: u32 = 600_000;

/// `PUT /snapshot/load`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotLoad {
    /// File with the state.
    pub snapshot_path: PathBuf,
    /// Source of memory.
    #[serde(default)]
    pub mem_backend: Option<MemoryBackend>,
    /// Deprecated: memory file.
    #[serde(default)]
    pub mem_file_path: Option<PathBuf>,
    /// True to track the pages that the guest writes.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Deprecated: like `track_dirty_pages`.
    #[serde(default)]
    pub enable_diff_snapshots: Option<bool>,
    /// True to resume the guest after the load.
    #[serde(default)]
    pub resume_vm: bool,
    /// Resources that replace the saved ones.
    #[serde(flatten)]
    pub own: Overrides,
    /// True to set the guest's clock to the host's.
    #[serde(default)]
    pub clock_realtime: bool,
    /// Page size behind memory.
    #[serde(default)]
    pub huge_pages: RestoredPages,
    /// Bantam's own: prefetching of the pages that the guest touches first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<Prefetch>,
}

impl SnapshotLoad {
    /// Creates the request that loads the two files of a snapshot unchanged.
    pub fn from_files(snapshot_path: PathBuf, memory: PathBuf) -> Self {
        Self {
            snapshot_path,
            mem_backend: Some(MemoryBackend {
                backend_type: MemoryBackendType::File,
                backend_path: memory,
            }),
            mem_file_path: None,
            track_dirty_pages: false,
            enable_diff_snapshots: None,
            resume_vm: false,
            own: Overrides::default(),
            clock_realtime: false,
            huge_pages: RestoredPages::Snapshot,
            prefetch: None,
        }
    }

    /// Returns the recording time if prefetching is on.
    pub fn prefetch(&self) -> Option<Duration> {
        let ms = match self.prefetch? {
            Prefetch::Switch(false) => return None,
            Prefetch::Switch(true) => DEFAULT_RECORD_MS,
            Prefetch::Recorded(recording) => recording.record_ms,
        };
        Some(Duration::from_millis(ms.into()))
    }

    /// Applies the overrides to the saved configuration.
    ///
    /// # Errors
    /// A message that names the key that cannot be applied.
    pub fn apply(&self, saved: &mut VmConfig) -> Result<(), String> {
        self.own.apply(saved)?;
        let machine = &mut saved.machine_config;
        machine.track_dirty_pages =
            self.track_dirty_pages || self.enable_diff_snapshots.unwrap_or_default();
        if let RestoredPages::As(pages) = self.huge_pages {
            machine.huge_pages = pages;
        }
        Ok(())
    }

    /// Returns the source of memory.
    ///
    /// # Errors
    /// As [`Self::validate`].
    pub fn memory(&self) -> Result<MemoryBackend, &'static str> {
        self.validate()?;
        let file = self.mem_file_path.clone().unwrap_or_default();
        Ok(self.mem_backend.clone().unwrap_or(MemoryBackend {
            backend_type: MemoryBackendType::File,
            backend_path: file,
        }))
    }

    /// Checks that exactly one source of memory is given and that it supports the page size.
    ///
    /// # Errors
    /// A message in Firecracker's words.
    pub fn validate(&self) -> Result<(), &'static str> {
        match (&self.mem_backend, &self.mem_file_path) {
            (Some(_), Some(_)) => Err(
                "too many fields: either `mem_backend` or `mem_file_path` exclusively is required",
            ),
            (None, None) => {
                Err("missing field: either `mem_backend` or `mem_file_path` is required")
            }
            _ => Ok(()),
        }?;
        let huge = self.huge_pages == RestoredPages::As(HugePages::Hugetlb2M);
        let served = self.mem_backend.as_ref();
        let served = served.is_some_and(|by| by.backend_type == MemoryBackendType::Uffd);
        let recorded = self.prefetch();
        let longest = Duration::from_millis(MAX_RECORD_MS.into());
        if recorded.is_some_and(|time| time.is_zero() || time > longest) {
            return Err("prefetch: record_ms must be 1 to 600000");
        }
        if recorded.is_some() && served {
            return Err(
                "prefetch needs a memory file: with the backend_type `Uffd` the handler decides what comes first",
            );
        }
        match huge && !served {
            true => Err(
                "huge_pages: 2M needs `mem_backend` with the backend_type `Uffd`: a memory file cannot have huge pages",
            ),
            false => Ok(()),
        }
    }
}

impl Overrides {
    /// Applies the overrides to the saved configuration.
    ///
    /// # Errors
    /// A message that names the key that cannot be applied.
    pub fn apply(&self, saved: &mut VmConfig) -> Result<(), String> {
        for change in &self.network_overrides {
            let id = &change.iface_id;
            let interfaces = &mut saved.network_interfaces;
            let interface = interfaces.iter_mut().find(|n| n.iface_id == *id);
            let interface = interface
                .ok_or_else(|| format!("network_overrides: the guest has no interface `{id}`"))?;
            interface.host_dev_name.clone_from(&change.host_dev_name);
            interface.tap_fd = None;
        }
        for change in &self.drive_overrides {
            let id = &change.drive_id;
            let drive = saved.drives.iter_mut().find(|d| d.drive_id == *id);
            let drive =
                drive.ok_or_else(|| format!("drive_overrides: the guest has no drive `{id}`"))?;
            drive.path_on_host = Some(change.path_on_host.clone());
        }
        if let Some(change) = &self.vsock_override {
            let vsock = saved
                .vsock
                .as_mut()
                .ok_or("vsock_override: the guest has no vsock")?;
            vsock.uds_path.clone_from(&change.uds_path);
            vsock.guest_cid = change.guest_cid.unwrap_or(vsock.guest_cid);
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "snapshot_test.rs"]
mod snapshot_test;
