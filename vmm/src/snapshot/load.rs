//! Reading a snapshot as far as a machine can be built from it.

use super::contents::{Base, ID_BYTES, Sample, Snapshot};
use super::error::{SnapshotError, invalid};
use super::links::{Link, beside, links, read_state};
use super::uffd;
use crate::machine::memory::layers::Layers;
use crate::machine::memory::view::View;
use boot::layout;
use devices::GuestMemory;
use resources::MachineConfig;
use std::path::{Path, PathBuf};
use vm_memory::{Bytes as _, GuestAddress};

/// A snapshot that was read and found sound.
#[derive(Debug)]
pub struct Loaded {
    /// The state.
    pub snapshot: Snapshot,
    /// The files with the memory.
    pub layers: Layers,
    /// Where it lies, for a diff upon it.
    pub base: Base,
    /// Its files, and those of the snapshots it lies on.
    pub files: Vec<PathBuf>,
    /// Whether its memory file has all pages, or those of a diff.
    pub whole: bool,
    /// The process that gives the memory, in place of files.
    served_by: Option<PathBuf>,
}

/// Reads the snapshot with its state at `state_path` and its memory at `memory_path`.
///
/// # Errors
/// [`SnapshotError`].
pub fn load(state_path: &Path, memory_path: &Path) -> Result<Loaded, SnapshotError> {
    let (snapshot, links) = links(state_path, memory_path)?;
    let base = Base {
        id: snapshot.id.clone(),
        snapshot_path: state_path.into(),
        mem_file_path: memory_path.into(),
    };
    Ok(Loaded {
        snapshot,
        layers: Layers(links.iter().map(Link::layer).collect()),
        base,
        whole: links.last().is_some_and(|link| link.whole),
        files: links.into_iter().flat_map(Link::into_paths).collect(),
        served_by: None,
    })
}

/// Reads the snapshot with its state at `state_path`, of which the process that listens at `socket` gives the memory.
///
/// # Errors
/// [`SnapshotError`].
pub fn load_served(state_path: &Path, socket: &Path) -> Result<Loaded, SnapshotError> {
    let (snapshot, _, _) = read_state(state_path)?;
    let base = Base {
        id: snapshot.id.clone(),
        snapshot_path: state_path.into(),
        mem_file_path: beside(state_path, &snapshot.memory.path),
    };
    Ok(Loaded {
        whole: snapshot.memory.base.is_none(),
        snapshot,
        layers: Layers::default(),
        files: vec![base.snapshot_path.clone(), base.mem_file_path.clone()],
        base,
        served_by: Some(socket.into()),
    })
}

impl Loaded {
    /// The guest's memory, known to be that of the snapshot as far as a few pages tell.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn memory(&mut self, config: &MachineConfig) -> Result<GuestMemory, SnapshotError> {
        if let Some(socket) = &self.served_by {
            let (memory, layer) = uffd::map(config, socket)?;
            self.layers = Layers(vec![layer]);
            // Each other page would be one that somebody has to give.
            self.recognise_mark(&memory, socket)?;
            return Ok(memory);
        }
        let path = &self.base.mem_file_path;
        let memory = self.layers.map(config);
        let memory = memory.map_err(|source| SnapshotError::Map {
            path: path.clone(),
            source,
        })?;
        self.recognise_mark(&memory, path)?;
        self.recognise_samples(&memory)?;
        Ok(memory)
    }

    fn recognise_mark(&self, memory: &GuestMemory, path: &Path) -> Result<(), SnapshotError> {
        let mut id = [0; ID_BYTES];
        let read = memory.read_slice(&mut id, GuestAddress(layout::SNAPSHOT_ID));
        if read.is_ok() && id == self.snapshot.id.as_bytes() {
            return Ok(());
        }
        let whose = match std::str::from_utf8(&id) {
            Ok(other) if other.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                format!("is the memory of snapshot {other}")
            }
            _ => "is no snapshot's memory".into(),
        };
        let id = &self.snapshot.id;
        Err(invalid(path, format!("{whose}, and the state is of {id}")))
    }

    fn recognise_samples(&self, memory: &GuestMemory) -> Result<(), SnapshotError> {
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
