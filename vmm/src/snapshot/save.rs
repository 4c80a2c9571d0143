//! Saves a paused machine to a snapshot.

use super::contents::{Base, MemoryState, Sample, Snapshot, new_id};
use super::error::{SnapshotError, invalid, unwritable};
use super::format;
use super::runs::{self, Run};
use super::temp_file::TempFile;
use super::writer::{Selection, Writer};
use crate::machine::Machine;
use crate::machine::memory::page::PAGE;
use crate::machine::memory::page_set::PageSet;
use crate::machine::memory::ranges::holding;
use crate::machine::memory::view::View;
use boot::layout;
use devices::GuestMemory;
use resources::VmConfig;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vm_memory::{Bytes as _, GuestAddress};

/// Number of sampled pages.
const SAMPLES: usize = 8;

/// A snapshot that was written or loaded.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Id and paths, as the base of the next diff.
    pub base: Base,
    /// Bytes of the pages that were written.
    pub written: u64,
    /// Checksums of sampled pages.
    pub samples: Vec<Sample>,
    /// Paths of its files and of its bases' files.
    pub files: Vec<PathBuf>,
    /// Whether its memory file holds all pages.
    pub whole: bool,
}

impl Saved {
    /// Returns whether a diff on this snapshot needs the file `path`.
    fn needs(&self, path: &Path) -> bool {
        let identity = |path: &Path| Some(path.metadata().ok()?).map(|m| (m.dev(), m.ino()));
        let wanted = identity(path);
        let same = |file: &PathBuf| file == path || (wanted.is_some() && identity(file) == wanted);
        self.files.iter().any(same)
    }
}

/// Saves the paused `machine` to the two files. With `since` it writes a diff of the pages written since that snapshot. If
/// the diff would replace a file that it needs, all pages are written instead: clients save diffs over the full snapshot and
/// expect that.
///
/// # Errors
/// [`SnapshotError`]: the files at the two paths and the machine are unchanged.
pub fn save(
    machine: &mut Machine,
    config: &VmConfig,
    (state_path, memory_path): (&Path, &Path),
    since: Option<&Saved>,
) -> Result<Saved, SnapshotError> {
    if state_path == memory_path {
        return Err(invalid(state_path, "state and memory need different files"));
    }
    let since = since.filter(|since| !since.needs(state_path) && !since.needs(memory_path));
    let id = new_id().map_err(unwritable(state_path))?;
    // If this snapshot fails, these pages count for the next diff.
    let mut dirty = machine.take_dirty().map_err(unwritable(memory_path))?;
    let marked = mark(machine.memory(), &id);
    if let Some(dirty) = &mut dirty {
        dirty.insert(layout::SNAPSHOT_ID / PAGE);
    }
    let paths = (state_path, memory_path);
    let saved = marked
        .map_err(unwritable(memory_path))
        .and_then(|()| write(machine, config, (id, paths), (dirty.as_ref(), since)));
    if let (Err(_), Some(dirty)) = (&saved, &dirty) {
        machine.return_dirty(dirty);
    }
    saved
}

/// Writes the snapshot's id into a page of memory that the guest does not use.
fn mark(memory: &GuestMemory, id: &str) -> io::Result<()> {
    let place = GuestAddress(layout::SNAPSHOT_ID);
    memory
        .write_slice(id.as_bytes(), place)
        .map_err(io::Error::other)
}

fn write(
    machine: &Machine,
    config: &VmConfig,
    (id, (state_path, memory_path)): (String, (&Path, &Path)),
    (dirty, since): (Option<&PageSet>, Option<&Saved>),
) -> Result<Saved, SnapshotError> {
    let state = machine.save()?;
    let memory_file = TempFile::create(memory_path).map_err(unwritable(memory_path))?;
    let view = View::new(machine.memory());
    let (selection, since) = select(machine, dirty, since).map_err(unwritable(memory_path))?;
    let runs = write_memory(machine, &view, &memory_file, selection);
    let runs = runs.map_err(unwritable(memory_path))?;
    let samples = sample(&view, &runs, since);
    let inode = memory_file.file().and_then(File::metadata);
    let snapshot = Snapshot {
        id: id.clone(),
        written_by: env!("CARGO_PKG_VERSION").into(),
        config: config.clone(),
        memory: MemoryState {
            bytes: view.bytes(),
            written: runs.iter().map(Run::bytes).sum(),
            path: memory_path.into(),
            inode: inode.map_err(unwritable(memory_path))?.ino(),
            base: since.map(|saved| saved.base.clone()),
            samples: samples.clone(),
        },
        machine: state,
    };
    place(&snapshot, &runs, memory_file, (state_path, memory_path))?;
    Ok(Saved {
        base: Base {
            id,
            snapshot_path: state_path.into(),
            mem_file_path: memory_path.into(),
        },
        written: snapshot.memory.written,
        samples,
        files: files(state_path, memory_path, since),
        whole: since.is_none(),
    })
}

/// Returns the paths of a snapshot's files and of its bases' files.
fn files(state_path: &Path, memory_path: &Path, since: Option<&Saved>) -> Vec<PathBuf> {
    let below = since.map(|saved| saved.files.clone()).unwrap_or_default();
    let own = [state_path.into(), memory_path.into()];
    below.into_iter().chain(own).collect()
}

/// Selects the pages to write. Returns the base if they are a diff.
fn select<'s>(
    machine: &Machine,
    dirty: Option<&PageSet>,
    since: Option<&'s Saved>,
) -> io::Result<(Selection, Option<&'s Saved>)> {
    match (since, dirty) {
        (Some(since), Some(dirty)) => Ok((Selection::These(dirty.clone()), Some(since))),
        // Without dirty tracking, compare every page with the previous memory file, which must hold all pages.
        (Some(since), None) if machine.is_based_on_one_file() && since.whole => {
            let base = File::open(&since.base.mem_file_path)?;
            Ok((Selection::DifferFrom(base), Some(since)))
        }
        _ => Ok((
            Selection::NotZero {
                elsewhere: machine.file_ranges()?,
                swap: nix::sys::sysinfo::sysinfo()?.swap_total() > 0,
            },
            None,
        )),
    }
}

/// Writes the memory on this thread and the vCPU threads, which have nothing else to do.
fn write_memory(
    machine: &Machine,
    view: &View,
    file: &TempFile,
    selection: Selection,
) -> io::Result<Vec<Run>> {
    let writer = Arc::new(Writer::new(view, file.file()?, selection)?);
    let shared = writer.clone();
    machine.with_vcpu_threads(Arc::new(move |_, _| shared.work()), || writer.work());
    let runs = writer.finish()?;
    file.sync()?;
    Ok(runs)
}

/// Returns checksums of some written pages, and the base's checksums of pages that did not change.
fn sample(view: &View, runs: &[Run], since: Option<&Saved>) -> Vec<Sample> {
    let step = runs.len().div_ceil(SAMPLES).max(1);
    let written = runs.iter().step_by(step).map(|run| u64::from(run.start));
    let joined = runs::joined(runs);
    let in_runs = |page: u64| holding(&joined, page * PAGE).is_some();
    let inherited = since
        .map(|saved| saved.samples.as_slice())
        .unwrap_or_default();
    let inherited = inherited.iter().map(|sample| sample.page);
    let inherited = inherited.filter(|page| !in_runs(*page)).take(SAMPLES);
    let pages = written.chain(inherited);
    let samples = pages.filter_map(|page| {
        let crc = view.page(page)?.crc();
        Some(Sample { page, crc })
    });
    samples.collect()
}

/// Writes the state file and gives both files their names.
pub(super) fn place(
    snapshot: &Snapshot,
    runs: &[Run],
    memory_file: TempFile,
    (state_path, memory_path): (&Path, &Path),
) -> Result<(), SnapshotError> {
    let json = serde_json::to_vec(snapshot);
    let json = json.map_err(|e| unwritable(state_path)(e.into()))?;
    let bytes = format::encode(&json, &runs::encode(runs));
    let state_file = TempFile::create(state_path).map_err(unwritable(state_path))?;
    let written = state_file.file().and_then(|file| {
        std::os::unix::fs::FileExt::write_all_at(file, &bytes, 0)?;
        state_file.sync()
    });
    written.map_err(unwritable(state_path))?;
    state_file.commit().map_err(unwritable(state_path))?;
    memory_file.commit().map_err(unwritable(memory_path))
}
