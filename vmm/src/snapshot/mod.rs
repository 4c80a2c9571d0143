//! Snapshots: a held machine in two files, and a machine from them.
//!
//! | file | holds |
//! |---|---|
//! | the state (`snapshot_path`) | configuration, registers, devices, and which pages the memory file has; see `format.rs` |
//! | the memory (`mem_file_path`) | guest memory from its first to its last byte; pages without content are holes |
//!
//! The memory file of a *diff* holds only the pages that were written since the snapshot before, its base; the state
//! names the base, so that a chain of diffs loads as it is. One that was merged into its base by other tools
//! loads, too: it is known by what it holds beside the pages of the diff.
//!
//! Both files are written aside, brought to the disk, and take their places with the state first: from then on it is the
//! snapshot. If that is where the host stops, the memory is found under its first name, which the state knows by its
//! inode.

pub mod aside;
mod chain;
pub mod command;
pub mod fork;
pub mod format;
mod info;
mod links;
mod load;
mod merge;
pub mod page_set;
pub mod prefetch;
pub mod raw;
pub mod runs;
mod save;
mod uffd;
mod verify;
pub mod view;
mod working_set;
pub mod writer;

use crate::machine::MachineState;
use format::FormatError;
use resources::VmConfig;
use runs::TableError;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

pub use chain::{Layer, Layers};
pub use load::{Loaded, load, load_served};
pub use save::{Saved, save};

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

/// Why there is no snapshot, or none that can be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The machine cannot be saved.
    #[error(transparent)]
    Machine(#[from] crate::machine::SaveError),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The state's file is none.
    #[error("{}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// The state's table is none.
    #[error("{}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TableError,
    },
    /// No other process gives the memory.
    #[error(transparent)]
    Uffd(#[from] uffd::UffdError),
    /// What the state says cannot be.
    #[error("{}: {why}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The host cannot map the memory.
    #[error("cannot map the guest's memory from {}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The name of a new snapshot or copy.
///
/// # Errors
/// The host has no random numbers.
pub fn new_id() -> io::Result<String> {
    Ok(format!("{:016x}", getrandom::u64()?))
}

/// For `map_err` of reading `path`.
fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Read { path, source }
}

/// For `map_err` of writing `path`.
fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Write { path, source }
}

fn invalid(path: &Path, why: impl Into<String>) -> SnapshotError {
    SnapshotError::Invalid {
        path: path.into(),
        why: why.into(),
    }
}

#[cfg(test)]
#[path = "golden_test.rs"]
mod golden_test;
#[cfg(test)]
#[path = "snapshot_test.rs"]
mod snapshot_test;
