//! Reading a snapshot, all of whose bytes may be hostile, as far as a machine can be built from it.

use super::chain::{Layer, Layers};
use super::format::Header;
use super::runs::{self, PAGE, PAGE_BYTES};
use super::view::{View, data_in};
use super::{Base, MAX_CHAIN, Sample, Snapshot, SnapshotError, aside, invalid, unreadable};
use boot::layout;
use devices::GuestMemory;
use std::fs::File;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vm_memory::{Bytes as _, GuestAddress};

/// Bytes of a snapshot's name.
const ID_BYTES: usize = 16;

/// A snapshot that was read and found sound.
#[derive(Debug)]
pub struct Loaded {
    /// The state.
    pub snapshot: Snapshot,
    /// The files with the memory.
    pub layers: Layers,
    /// Where it lies, for a diff upon it.
    pub base: Base,
}

/// Reads the snapshot with its state at `state_path` and its memory at `memory_path`.
///
/// # Errors
/// [`SnapshotError`].
pub fn load(state_path: &Path, memory_path: &Path) -> Result<Loaded, SnapshotError> {
    let (snapshot, state_file, header) = read_state(state_path)?;
    let layers = layers(
        &snapshot,
        (&state_file, header),
        (state_path, memory_path),
        0,
    )?;
    let base = Base {
        id: snapshot.id.clone(),
        snapshot_path: state_path.into(),
        mem_file_path: memory_path.into(),
    };
    Ok(Loaded {
        snapshot,
        layers: Layers(layers),
        base,
    })
}

/// A regular file, whatever else has its name.
fn open(path: &Path) -> Result<File, SnapshotError> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(unreadable(path))?;
    match file.metadata().map_err(unreadable(path))?.is_file() {
        true => Ok(file),
        false => Err(invalid(path, "is no regular file")),
    }
}

/// The state in the file at `path`, with what else is in there.
pub(super) fn read_state(path: &Path) -> Result<(Snapshot, File, Header), SnapshotError> {
    let format = |source| SnapshotError::Format {
        path: path.into(),
        source,
    };
    let file = open(path)?;
    let header = Header::read(&file).map_err(format)?;
    let json = header.state(&file).map_err(format)?;
    let snapshot: Snapshot = serde_json::from_slice(&json)
        .map_err(|e| invalid(path, format!("the state cannot be understood: {e}")))?;
    check(&snapshot).map_err(|why| invalid(path, why))?;
    Ok((snapshot, file, header))
}

/// Whether the parts of the state fit one another.
pub(super) fn check(snapshot: &Snapshot) -> Result<(), String> {
    let machine = &snapshot.config.machine_config;
    let problems = snapshot.config.problems();
    if let Some(problem) = problems.first() {
        return Err(format!("the saved configuration is not sound: {problem}"));
    }
    if snapshot.memory.bytes != machine.mem_bytes() {
        return Err(format!(
            "the memory has {} bytes, and the configuration {}",
            snapshot.memory.bytes,
            machine.mem_bytes()
        ));
    }
    let (saved, configured) = (snapshot.machine.vcpus.len(), machine.vcpu_count);
    if saved != usize::from(configured) {
        return Err(format!(
            "there are {saved} vCPUs, and the configuration has {configured}"
        ));
    }
    Ok(())
}

/// The memory at `path`, or where it is still called otherwise, because the host stopped between naming the state and
/// naming the memory.
fn open_memory(snapshot: &Snapshot, path: &Path) -> Result<File, SnapshotError> {
    let partial = aside::partial(path);
    if let Ok(file) = open(&partial)
        && let Ok(metadata) = file.metadata()
        && metadata.ino() == snapshot.memory.inode
        && metadata.len() == snapshot.memory.bytes
    {
        log::warn!(
            "{} takes its place: the host stopped before it could",
            path.display()
        );
        std::fs::rename(&partial, path).map_err(super::unwritable(path))?;
    }
    let file = open(path)?;
    let len = file.metadata().map_err(unreadable(path))?.len();
    match len == snapshot.memory.bytes {
        true => Ok(file),
        false => Err(invalid(
            path,
            format!(
                "has {len} bytes, and the guest's memory {}: it is cut off, or not of this snapshot",
                snapshot.memory.bytes
            ),
        )),
    }
}

/// The memory of `snapshot` and of those it lies on, the lowest first.
fn layers(
    snapshot: &Snapshot,
    (state_file, header): (&File, Header),
    (state_path, memory_path): (&Path, &Path),
    depth: usize,
) -> Result<Vec<Layer>, SnapshotError> {
    let file = open_memory(snapshot, memory_path)?;
    let Some(base) = &snapshot.memory.base else {
        let file = Arc::new(file);
        return Ok(vec![Layer { file, runs: None }]);
    };
    let table = header.table(state_file);
    let table = table.map_err(|source| SnapshotError::Format {
        path: state_path.into(),
        source,
    })?;
    let pages = snapshot.memory.bytes / PAGE;
    let runs = runs::decode(&table, pages).map_err(|source| SnapshotError::Table {
        path: state_path.into(),
        source,
    })?;
    let runs = runs::joined(&runs);
    if is_whole(&file, snapshot.memory.bytes, &runs).map_err(unreadable(memory_path))? {
        let file = Arc::new(file);
        return Ok(vec![Layer { file, runs: None }]);
    }
    if depth >= MAX_CHAIN {
        return Err(invalid(
            state_path,
            format!("it is a diff upon more than {MAX_CHAIN} others: merge them"),
        ));
    }
    let (base_state, base_memory) = (
        beside(state_path, &base.snapshot_path),
        beside(memory_path, &base.mem_file_path),
    );
    let (below, below_file, below_header) = read_state(&base_state)?;
    if below.id != base.id || below.memory.bytes != snapshot.memory.bytes {
        return Err(invalid(
            &base_state,
            format!(
                "is snapshot {}, and {} is a diff upon snapshot {}",
                below.id,
                state_path.display(),
                base.id
            ),
        ));
    }
    let paths = (base_state.as_path(), base_memory.as_path());
    let mut all = layers(&below, (&below_file, below_header), paths, depth + 1)?;
    all.push(Layer {
        file: Arc::new(file),
        runs: Some(runs),
    });
    Ok(all)
}

/// Whether a diff's memory file was merged into its base: it holds something beside the diff's `runs`. Zeroes are nothing:
/// a file that was copied by a program that knows no holes has them everywhere.
fn is_whole(file: &File, len: u64, runs: &[(u64, u64)]) -> std::io::Result<bool> {
    let mut page = vec![0; PAGE_BYTES];
    for (start, data) in data_in(file, len)? {
        let mut at = start;
        while at < start + data {
            let after = runs.partition_point(|(offset, _)| *offset <= at);
            let run = after.checked_sub(1).and_then(|index| runs.get(index));
            if let Some((offset, run)) = run.filter(|(offset, run)| at < offset + run) {
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

/// Where a base is: where it was written, or beside the diff upon it if all were moved.
fn beside(diff: &Path, written: &Path) -> PathBuf {
    let moved = diff
        .parent()
        .zip(written.file_name())
        .map(|(directory, name)| directory.join(name));
    match moved {
        Some(moved) if !written.exists() => moved,
        _ => written.into(),
    }
}

impl Loaded {
    /// Whether `memory` is that of the snapshot, as far as a few pages tell.
    ///
    /// # Errors
    /// [`SnapshotError::Invalid`].
    pub fn recognise(&self, memory: &GuestMemory) -> Result<(), SnapshotError> {
        let mut id = [0; ID_BYTES];
        let read = memory.read_slice(&mut id, GuestAddress(layout::SNAPSHOT_ID));
        if read.is_err() || id != self.snapshot.id.as_bytes() {
            let whose = match std::str::from_utf8(&id) {
                Ok(other) if other.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                    format!("is the memory of snapshot {other}")
                }
                _ => "is no snapshot's memory".into(),
            };
            return Err(invalid(
                &self.base.mem_file_path,
                format!("{whose}, and the state is of {}", self.snapshot.id),
            ));
        }
        let view = View::new(memory);
        let other = |sample: &&Sample| {
            let page = view.page(sample.page);
            page.is_none_or(|page| page.crc() != sample.crc)
        };
        match self.snapshot.memory.samples.iter().find(other) {
            None => Ok(()),
            Some(sample) => Err(invalid(
                &self.base.mem_file_path,
                format!(
                    "is damaged: page {} is not what it was (`bantam snapshot verify` looks at all)",
                    sample.page
                ),
            )),
        }
    }
}
