//! Why a snapshot cannot be written or used.

use super::format::FormatError;
use super::runs::TableError;
use super::uffd::UffdError;
use crate::machine::SaveError;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no snapshot, or none that can be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The machine cannot be saved.
    #[error(transparent)]
    Machine(#[from] SaveError),
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
    Uffd(#[from] UffdError),
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

/// For `map_err` of reading `path`.
pub(super) fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> SnapshotError {
    let path = path.to_owned();
    move |source| SnapshotError::Read { path, source }
}

/// For `map_err` of writing `path`.
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
