//! What the state of a snapshot holds.

use crate::machine::MachineState;
use resources::VmConfig;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::PathBuf;

/// Bytes of a snapshot's name.
pub(super) const ID_BYTES: usize = 16;

/// Largest state in bytes. A state of 32 vCPUs takes 1 MiB.
pub const MAX_STATE_BYTES: u64 = 64 << 20;

/// Most diffs one upon the other.
pub const MAX_CHAIN: usize = 256;

/// What the state's file holds, as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Snapshot {
    /// Which snapshot it is: 16 random hexadecimal digits.
    pub id: String,
    /// The version of the program that wrote it, for the reader.
    pub written_by: String,
    /// The guest's configuration.
    pub config: VmConfig,
    /// What is in the memory file.
    pub memory: MemoryState,
    /// Everything else.
    pub machine: MachineState,
}

impl Snapshot {
    /// Parses a state and checks that its parts fit one another. The bytes are not trusted.
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
            return Err(format!("the saved configuration is not sound: {problem}"));
        }
        if self.memory.bytes != machine.mem_bytes() {
            return Err(format!(
                "the memory has {} bytes, and the configuration {}",
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

/// What is in a memory file.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MemoryState {
    /// Bytes of the guest's memory, and of the file.
    pub bytes: u64,
    /// Bytes of the pages that were written.
    pub written: u64,
    /// Where the file was written.
    #[serde(default)]
    pub path: PathBuf,
    /// The file's inode, by which it is known before it has its place.
    pub inode: u64,
    /// The snapshot that has the other pages.
    #[serde(default)]
    pub base: Option<Base>,
    /// Some pages of the whole memory, to know a memory that is another's.
    pub samples: Vec<Sample>,
}

/// The snapshot that a diff lies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Which it is.
    pub id: String,
    /// Its state.
    pub snapshot_path: PathBuf,
    /// Its memory.
    pub mem_file_path: PathBuf,
}

/// The checksum of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// Index in the memory file.
    pub page: u64,
    /// CRC-32.
    pub crc: u32,
}

/// The name of a new snapshot or copy.
///
/// # Errors
/// The host has no random numbers.
pub fn new_id() -> io::Result<String> {
    Ok(format!("{:016x}", getrandom::u64()?))
}
