//! Finds and opens the files of a snapshot and its bases. The files are not trusted.

use super::contents::{MAX_CHAIN, Snapshot};
use super::error::{SnapshotError, invalid, unreadable, unwritable};
use super::format::Header;
use super::runs::{self, Run};
use super::temp_file;
use crate::machine::memory::layers::Layer;
use crate::machine::memory::page::{PAGE, PAGE_BYTES};
use crate::machine::memory::ranges::{data_in, holding};
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A snapshot of a chain with its two files.
#[derive(Debug)]
pub(super) struct Link {
    /// Id of the snapshot.
    pub id: String,
    /// Path of its state file.
    pub state_path: PathBuf,
    /// Path of its memory file.
    pub memory_path: PathBuf,
    /// The open memory file.
    pub memory: Arc<File>,
    /// Whether the memory file holds all pages, and not only those of the table.
    pub whole: bool,
    bytes: u64,
    state: (File, Header),
    /// The page table of a diff.
    runs: Option<Vec<Run>>,
}

impl Link {
    fn new(
        snapshot: &Snapshot,
        state: (File, Header),
        (state_path, memory_path): (&Path, &Path),
    ) -> Result<Self, SnapshotError> {
        let memory = open_memory(snapshot, memory_path)?;
        let mut link = Self {
            id: snapshot.id.clone(),
            state_path: state_path.into(),
            memory_path: memory_path.into(),
            memory: Arc::new(memory),
            whole: true,
            bytes: snapshot.memory.bytes,
            state,
            runs: None,
        };
        if snapshot.memory.base.is_some() {
            let table = link.table()?;
            let whole = is_whole(&link.memory, link.bytes, &runs::joined(&table));
            link.whole = whole.map_err(unreadable(memory_path))?;
            link.runs = Some(table);
        }
        Ok(link)
    }

    /// Returns the page table of the snapshot.
    ///
    /// # Errors
    /// [`SnapshotError::Format`], [`SnapshotError::Table`].
    pub fn table(&self) -> Result<Vec<Run>, SnapshotError> {
        if let Some(runs) = &self.runs {
            return Ok(runs.clone());
        }
        let (file, header) = &self.state;
        let table = header.table(file).map_err(|source| SnapshotError::Format {
            path: self.state_path.clone(),
            source,
        })?;
        runs::decode(&table, self.bytes / PAGE).map_err(|source| SnapshotError::Table {
            path: self.state_path.clone(),
            source,
        })
    }

    /// Returns the size of the guest's memory in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns whether the snapshot was written as a diff.
    pub fn is_diff(&self) -> bool {
        self.runs.is_some()
    }

    /// Returns the paths of its files.
    pub fn into_paths(self) -> [PathBuf; 2] {
        [self.state_path, self.memory_path]
    }

    /// Returns the memory file as a layer.
    pub fn layer(&self) -> Layer {
        let runs = self.runs.as_ref().filter(|_| !self.whole);
        Layer {
            file: self.memory.clone(),
            runs: runs.map(|runs| runs::joined(runs)),
        }
    }
}

/// Opens the snapshot with these files and its bases, down to a memory file with all pages. The lowest comes first.
///
/// # Errors
/// [`SnapshotError`].
pub(super) fn links(
    state_path: &Path,
    memory_path: &Path,
) -> Result<(Snapshot, Vec<Link>), SnapshotError> {
    let (snapshot, file, header) = read_state(state_path)?;
    let mut all = vec![Link::new(
        &snapshot,
        (file, header),
        (state_path, memory_path),
    )?];
    let mut base = snapshot.memory.base.clone();
    while let (Some(above), Some(lies_on)) = (all.last(), &base) {
        if above.whole {
            break;
        }
        if all.len() > MAX_CHAIN {
            return Err(invalid(
                state_path,
                format!("it is a diff on more than {MAX_CHAIN} others: merge them"),
            ));
        }
        let state_path = base_path(&above.state_path, &lies_on.snapshot_path);
        let memory_path = base_path(&above.memory_path, &lies_on.mem_file_path);
        let (below, file, header) = read_state(&state_path)?;
        if below.id != lies_on.id || below.memory.bytes != snapshot.memory.bytes {
            return Err(invalid(
                &state_path,
                format!(
                    "is snapshot {}, and {} is a diff on snapshot {}",
                    below.id,
                    above.state_path.display(),
                    lies_on.id
                ),
            ));
        }
        let link = Link::new(&below, (file, header), (&state_path, &memory_path))?;
        all.push(link);
        base = below.memory.base;
    }
    all.reverse();
    Ok((snapshot, all))
}

/// Opens a regular file, and refuses anything else.
pub(super) fn open(path: &Path) -> Result<File, SnapshotError> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable(path))?;
    match file.metadata().map_err(unreadable(path))?.is_file() {
        true => Ok(file),
        false => Err(invalid(path, "is not a regular file")),
    }
}

/// Reads and checks the state file `path`.
pub(super) fn read_state(path: &Path) -> Result<(Snapshot, File, Header), SnapshotError> {
    let format = |source| SnapshotError::Format {
        path: path.into(),
        source,
    };
    let file = open(path)?;
    let header = Header::read(&file).map_err(format)?;
    let json = header.state(&file).map_err(format)?;
    let snapshot = Snapshot::from_json(&json).map_err(|why| invalid(path, why))?;
    Ok((snapshot, file, header))
}

/// Opens the memory file `path`. If the host stopped after the state got its name and before the memory did, the memory is
/// still under its temporary name and is renamed first.
fn open_memory(snapshot: &Snapshot, path: &Path) -> Result<File, SnapshotError> {
    let partial = temp_file::partial(path);
    if let Ok(file) = open(&partial)
        && let Ok(metadata) = file.metadata()
        && metadata.ino() == snapshot.memory.inode
        && metadata.len() == snapshot.memory.bytes
    {
        log::warn!(
            "{} is completed: the host stopped before the rename",
            path.display()
        );
        std::fs::rename(&partial, path).map_err(unwritable(path))?;
    }
    let file = open(path)?;
    let len = file.metadata().map_err(unreadable(path))?.len();
    match len == snapshot.memory.bytes {
        true => Ok(file),
        false => Err(invalid(
            path,
            format!(
                "has {len} bytes, and the guest's memory has {}: it is truncated, or of another snapshot",
                snapshot.memory.bytes
            ),
        )),
    }
}

/// Returns whether another tool merged a diff's memory file into its base: the file then holds data beside the diff's
/// `runs`. Zeroes do not count, because a copy made without knowledge of holes has them everywhere.
pub(super) fn is_whole(file: &File, len: u64, runs: &[(u64, u64)]) -> std::io::Result<bool> {
    let mut page = vec![0; PAGE_BYTES];
    for (start, data) in data_in(file, len)? {
        let mut at = start;
        while at < start + data {
            if let Some((offset, run)) = holding(runs, at) {
                at = offset + run;
                continue;
            }
            let now = usize::try_from(PAGE - at % PAGE).unwrap_or(page.len());
            let part = page.get_mut(..now).unwrap_or_default();
            file.read_exact_at(part, at)?;
            if part.iter().any(|byte| *byte != 0) {
                return Ok(true);
            }
            at += part.len() as u64;
        }
    }
    Ok(false)
}

/// Returns the path of a base: the one where it was written, or beside the diff if all files were moved.
pub(super) fn base_path(diff: &Path, written: &Path) -> PathBuf {
    let moved = diff
        .parent()
        .zip(written.file_name())
        .map(|(directory, name)| directory.join(name));
    match moved {
        Some(moved) if !written.exists() => moved,
        _ => written.into(),
    }
}
