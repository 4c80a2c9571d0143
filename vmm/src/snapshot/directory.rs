//! The names of the two files in a snapshot's directory.

use std::path::{Path, PathBuf};

/// Name of the state file.
const STATE: &str = "state";
/// Name of the memory file.
const MEMORY: &str = "memory";

/// Returns the paths of state and memory in `directory`.
pub fn files_in(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join(STATE), directory.join(MEMORY))
}
