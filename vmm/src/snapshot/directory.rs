//! The names of a snapshot's two files in a directory of its own.

use std::path::{Path, PathBuf};

/// The file with the state, in a directory that is a snapshot.
const STATE: &str = "state";
/// The file with the memory, likewise.
const MEMORY: &str = "memory";

/// The two files of the snapshot in `directory`.
pub fn files_in(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join(STATE), directory.join(MEMORY))
}
