//! Writing a snapshot of a machine that is held.

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

/// Pages that are sampled.
const SAMPLES: usize = 8;

/// A snapshot that was written.
#[derive(Clone, Debug)]
pub struct Saved {
    /// Which one, and where: the base of the next.
    pub base: Base,
    /// Bytes of pages that were written.
    pub written: u64,
    /// Its checksums.
    pub samples: Vec<Sample>,
    /// Its files, and those of the snapshots it lies on.
    pub files: Vec<PathBuf>,
    /// Whether its memory file has all pages, or those of a diff.
    pub whole: bool,
}

impl Saved {
    /// Whether `path` is one of the files that a diff upon it needs.
    fn needs(&self, path: &Path) -> bool {
        let identity = |path: &Path| Some(path.metadata().ok()?).map(|m| (m.dev(), m.ino()));
        let wanted = identity(path);
        let same = |file: &PathBuf| file == path || (wanted.is_some() && identity(file) == wanted);
        self.files.iter().any(same)
    }
}

/// Writes the state of `machine`, which is held, to `state_path` and its memory to `memory_path`. With `since` it is a
/// diff on that snapshot, of the pages written since; unless that would take the place of a file that the diff needs: then
/// all of the memory is written, as clients expect who save differences over the whole.
///
/// # Errors
/// [`SnapshotError`]: what was at the two paths is still there, and the machine as it was.
pub fn save(
    machine: &mut Machine,
    config: &VmConfig,
    (state_path, memory_path): (&Path, &Path),
    since: Option<&Saved>,
) -> Result<Saved, SnapshotError> {
    if state_path == memory_path {
        return Err(invalid(state_path, "state and memory need a file each"));
    }
    let since = since.filter(|since| !since.needs(state_path) && !since.needs(memory_path));
    let id = new_id().map_err(unwritable(state_path))?;
    // The pages that were written count for the next diff if this one fails.
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

/// Writes into the memory which snapshot it belongs to, where the guest has nothing.
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

/// The files of a snapshot at these paths that lies on `since`.
fn files(state_path: &Path, memory_path: &Path, since: Option<&Saved>) -> Vec<PathBuf> {
    let below = since.map(|saved| saved.files.clone()).unwrap_or_default();
    let own = [state_path.into(), memory_path.into()];
    below.into_iter().chain(own).collect()
}

/// Which pages to write, and whether that is a diff.
fn select<'s>(
    machine: &Machine,
    dirty: Option<&PageSet>,
    since: Option<&'s Saved>,
) -> io::Result<(Selection, Option<&'s Saved>)> {
    match (since, dirty) {
        (Some(since), Some(dirty)) => Ok((Selection::These(dirty.clone()), Some(since))),
        // Without track_dirty_pages what has changed is found by comparing with the file before, which has to have it.
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

/// By this thread and those of the vCPUs, which have nothing else to do.
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

/// Pages of which the checksums are kept: of those that were written, and those of the base that still hold.
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

/// Writes the state and gives both files their places.
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
