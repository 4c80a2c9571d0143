//! Snapshots: saving a paused machine to two files, loading it, and tools that inspect, verify and merge snapshots.
//!
//! The controller and `main.rs` use it. It builds no machine and talks to no other process but a page fault handler.
//!
//! | file | content |
//! |---|---|
//! | state (`snapshot_path`) | configuration, registers, devices, and the table of the pages in the memory file; see `format.rs` |
//! | memory (`mem_file_path`) | guest memory from its first to its last byte; pages without data are holes |
//!
//! The memory file of a *diff* holds only the pages written since its base. The state names the base, so that a chain of
//! diffs can be loaded. A diff that another tool merged into its base can be loaded, too: it holds data beside its own pages.
//!
//! Both files are written under temporary names and synced. Then the state is renamed first: from then on it is the
//! snapshot. If the host stops there, the loader finds the memory under its temporary name by the inode in the state.

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
