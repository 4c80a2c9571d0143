//! Why a snapshot cannot be written or used.

use super::format::FormatError;
use super::runs::TableError;
use super::uffd::UffdError;
use crate::machine::SaveError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a snapshot cannot be written or used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The machine cannot be saved.
    #[error(transparent)]
    Machine(#[from] SaveError),
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The file is not a snapshot's state.
    #[error("{}", path.display())]
    Format {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: FormatError,
    },
    /// The page table of the state is invalid.
    #[error("{}", path.display())]
    Table {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: TableError,
    },
    /// No page fault handler serves the memory.
    #[error(transparent)]
    Uffd(#[from] UffdError),
    /// The content of a file is invalid.
    #[error("{}: {why}", path.display())]
    Invalid {
        /// The file's path.
        path: PathBuf,
        /// The reason.
        why: String,
    },
    /// The host cannot map the memory.
    #[error("cannot map the guest's memory from {}", path.display())]
    Map {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// Returns a closure for `map_err` of reading `path`.
pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Read { path, source }
}

/// Returns a closure for `map_err` of writing `path`.
pub(super) fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Write { path, source }
}

pub(super) fn invalid(path: &Path, why: impl Into<String>) -> SnapshotError {
    SnapshotError::Invalid {
        path: path.into(),
        why: why.into(),
    }
}
