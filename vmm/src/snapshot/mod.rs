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

mod contents;
mod directory;
mod error;
pub mod format;
mod info;
mod links;
mod load;
mod merge;
pub mod prefetch;
pub mod runs;
mod save;
mod temp_file;
mod tools;
mod uffd;
mod verify;
mod working_set;
mod writer;

pub use contents::{Base, MAX_CHAIN, MAX_STATE_BYTES, MemoryState, Sample, Snapshot, new_id};
pub use directory::files_in;
pub use error::SnapshotError;
pub use info::describe;
pub use load::{Loaded, load, load_served};
pub use save::{Saved, save};
pub use tools::run as run_tool;

#[cfg(test)]
#[path = "golden_test.rs"]
mod golden_test;
#[cfg(test)]
#[path = "snapshot_test.rs"]
mod snapshot_test;
