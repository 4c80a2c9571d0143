//! What is asked of a snapshot.

use crate::config_file::VmConfig;
use crate::sections::machine::HugePages;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// How much is saved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotType {
    /// All memory.
    #[default]
    Full,
    /// What the guest has written since the last one.
    Diff,
}

/// `PUT /snapshot/create`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotCreate {
    /// File for the state of machine and devices.
    pub snapshot_path: PathBuf,
    /// File for the memory.
    pub mem_file_path: PathBuf,
    /// How much.
    #[serde(default)]
    pub snapshot_type: SnapshotType,
    /// Sent by older clients, and ignored.
    #[serde(default, skip_serializing)]
    pub version: Option<String>,
}

/// Who answers when the guest touches memory that is not there yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MemoryBackendType {
    /// The kernel, from the file.
    File,
    /// A process at a Unix socket.
    Uffd,
}

/// Where memory comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryBackend {
    /// Who answers.
    pub backend_type: MemoryBackendType,
    /// The file or the socket.
    pub backend_path: PathBuf,
}

/// Another tap for an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkOverride {
    /// The interface.
    pub iface_id: String,
    /// The tap.
    pub host_dev_name: String,
}

/// Another socket for vsock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VsockOverride {
    /// The socket.
    pub uds_path: PathBuf,
    /// Bantam's own: another address for the guest, at least 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_cid: Option<u32>,
}

/// Bantam's own: another image for a drive. It must hold what the saved one held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveOverride {
    /// The drive.
    pub drive_id: String,
    /// The image.
    pub path_on_host: PathBuf,
}

/// Bantam's own: a copy of the running guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForkChild {
    /// Where the process waits that is to have it (`bantam --fork-socket`).
    pub socket: PathBuf,
    /// What is its own.
    #[serde(flatten)]
    pub own: Overrides,
}

/// What a copy, or a guest that is restored, has for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Other taps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub network_overrides: Vec<NetworkOverride>,
    /// Another socket for vsock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vsock_override: Option<VsockOverride>,
    /// Bantam's own: other images.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drive_overrides: Vec<DriveOverride>,
}

/// `PUT /vm/fork`, Bantam's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fork {
    /// The copies.
    pub children: Vec<ForkChild>,
}

/// Pages behind restored memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RestoredPages {
    /// As these.
    As(HugePages),
    /// As when it was saved.
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

/// Bantam's own: whether what a restored guest touches at first is brought in before it asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Prefetch {
    /// Whether, with the default of how long it is recorded.
    Switch(bool),
    /// It is, recorded for so long if it was not yet.
    Recorded(Recording),
}

/// How long is recorded what a restored guest touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recording {
    /// Milliseconds, 1 to 600000.
    pub record_ms: u32,
}

/// How long is recorded if nothing is said: a guest has answered its first requests.
const DEFAULT_RECORD_MS: u32 = 2000;
/// Most that can be recorded: ten minutes.
const MAX_RECORD_MS: u32 = 600_000;

/// `PUT /snapshot/load`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotLoad {
    /// File with the state.
    pub snapshot_path: PathBuf,
    /// Where memory comes from.
    #[serde(default)]
    pub mem_backend: Option<MemoryBackend>,
    /// Deprecated: file with the memory.
    #[serde(default)]
    pub mem_file_path: Option<PathBuf>,
    /// Whether the pages the guest writes are tracked.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Deprecated: the same.
    #[serde(default)]
    pub enable_diff_snapshots: Option<bool>,
    /// Whether the guest goes on at once.
    #[serde(default)]
    pub resume_vm: bool,
    /// What is other than it was saved.
    #[serde(flatten)]
    pub own: Overrides,
    /// Whether the guest's clock is set to the host's.
    #[serde(default)]
    pub clock_realtime: bool,
    /// Pages behind memory.
    #[serde(default)]
    pub huge_pages: RestoredPages,
    /// Bantam's own: whether what the guest touches at first is brought in before it asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefetch: Option<Prefetch>,
}

impl SnapshotLoad {
    /// From the two files of a snapshot, as they are.
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

    /// How long to record what the guest touches, if that is to be brought in at all.
    pub fn prefetch(&self) -> Option<Duration> {
        let ms = match self.prefetch? {
            Prefetch::Switch(false) => return None,
            Prefetch::Switch(true) => DEFAULT_RECORD_MS,
            Prefetch::Recorded(recording) => recording.record_ms,
        };
        Some(Duration::from_millis(ms.into()))
    }

    /// The configuration that `saved` becomes.
    ///
    /// # Errors
    /// What cannot be had, naming the key.
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

    /// Where memory comes from.
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

    /// Whether memory comes from exactly one place, which can have the pages that are asked for.
    ///
    /// # Errors
    /// What is wrong, in the compatible monitor's words.
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
                "huge_pages: 2M needs `mem_backend` with the backend_type `Uffd`: huge pages cannot be a file's",
            ),
            false => Ok(()),
        }
    }
}

impl Overrides {
    /// `config` with them.
    ///
    /// # Errors
    /// What cannot be had, naming the key.
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
