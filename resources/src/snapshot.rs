//! What is asked of a snapshot.

use crate::HugePages;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

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
    /// Other taps.
    #[serde(default)]
    pub network_overrides: Vec<NetworkOverride>,
    /// Another socket for vsock.
    #[serde(default)]
    pub vsock_override: Option<VsockOverride>,
    /// Whether the guest's clock is set to the host's.
    #[serde(default)]
    pub clock_realtime: bool,
    /// Pages behind memory.
    #[serde(default)]
    pub huge_pages: RestoredPages,
}

impl SnapshotLoad {
    /// Whether memory comes from exactly one place.
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
        }
    }
}
