//! The content of a snapshot's state.

use crate::machine::MachineState;
use resources::VmConfig;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// Length of a snapshot's id in bytes.
pub(super) const ID_BYTES: usize = 16;

/// Limit of a state in bytes. A state of 32 vCPUs takes 1 MiB.
pub const MAX_STATE_BYTES: u64 = 64 << 20;

/// Limit of diffs in a chain.
pub const MAX_CHAIN: usize = 256;

/// The content of a state file, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Id of the snapshot: 16 random hexadecimal digits.
    pub id: String,
    /// Version of the program that wrote it, for users to read.
    pub written_by: String,
    /// Configuration of the guest.
    pub config: VmConfig,
    /// Description of the memory file.
    pub memory: MemoryState,
    /// State of the machine.
    pub machine: MachineState,
}

impl Snapshot {
    /// Parses a state and checks that its parts match. The bytes are not trusted.
    ///
    /// # Errors
    /// The reason, for a message that names the file.
    pub fn from_json(json: &[u8]) -> Result<Self, String> {
        let snapshot: Self = serde_json::from_slice(json)
            .map_err(|e| format!("the state cannot be understood: {e}"))?;
        snapshot.check()?;
        Ok(snapshot)
    }

    fn check(&self) -> Result<(), String> {
        let machine = &self.config.machine_config;
        let problems = self.config.problems();
        if let Some(problem) = problems.first() {
            return Err(format!("the saved configuration is invalid: {problem}"));
        }
        if self.memory.bytes != machine.mem_bytes() {
            return Err(format!(
                "the memory has {} bytes, and the configuration has {}",
                self.memory.bytes,
                machine.mem_bytes()
            ));
        }
        let (saved, configured) = (self.machine.vcpus.len(), machine.vcpu_count);
        if saved != usize::from(configured) {
            return Err(format!(
                "there are {saved} vCPUs, and the configuration has {configured}"
            ));
        }
        Ok(())
    }
}

/// The description of a memory file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryState {
    /// Size of the guest's memory and of the file in bytes.
    pub bytes: u64,
    /// Bytes of the pages that were written.
    pub written: u64,
    /// Path at which the file was written.
    #[serde(default)]
    pub path: PathBuf,
    /// Inode of the file, which identifies it before it has its final name.
    pub inode: u64,
    /// The snapshot with the other pages, for a diff.
    #[serde(default)]
    pub base: Option<Base>,
    /// Checksums of some pages of the whole memory, to detect the memory of another snapshot.
    pub samples: Vec<Sample>,
}

/// The base of a diff.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Id of the snapshot.
    pub id: String,
    /// Path of its state file.
    pub snapshot_path: PathBuf,
    /// Path of its memory file.
    pub mem_file_path: PathBuf,
}

/// The checksum of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Index of the page in the memory file.
    pub page: u64,
    /// CRC-32 of the page.
    pub crc: u32,
}

/// Returns the id of a new snapshot or copy.
///
/// # Errors
/// The host has no random numbers.
pub fn new_id() -> io::Result<String> {
    Ok(format!("{:016x}", getrandom::u64()?))
}
