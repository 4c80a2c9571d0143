//! Loads a snapshot, so that a machine can be built from it.

use super::contents::{Base, ID_BYTES, Sample, Snapshot};
use super::error::{SnapshotError, invalid};
use super::links::{Link, base_path, links, read_state};
use super::uffd;
use crate::machine::memory::layers::Layers;
use crate::machine::memory::view::View;
use boot::layout;
use devices::GuestMemory;
use resources::MachineConfig;
use std::path::{Path, PathBuf};
use vm_memory::{Bytes as _, GuestAddress};

/// A snapshot that was read and checked.
#[derive(Debug)]
pub struct Loaded {
    /// The content of the state file.
    pub snapshot: Snapshot,
    /// The memory files.
    pub layers: Layers,
    /// Id and paths of the snapshot, as the base of the next diff.
    pub base: Base,
    /// Paths of its files and of its bases' files.
    pub files: Vec<PathBuf>,
    /// Whether its memory file holds all pages.
    pub whole: bool,
    /// Socket of the process that serves the memory instead of files.
    served_by: Option<PathBuf>,
}

/// Loads the snapshot with the given state and memory files.
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

/// Loads the snapshot with the given state file. The process that listens at `socket` serves its memory.
///
/// # Errors
/// [`SnapshotError`].
pub fn load_served(state_path: &Path, socket: &Path) -> Result<Loaded, SnapshotError> {
    let (snapshot, _, _) = read_state(state_path)?;
    let base = Base {
        id: snapshot.id.clone(),
        snapshot_path: state_path.into(),
        mem_file_path: base_path(state_path, &snapshot.memory.path),
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
    /// Maps the guest's memory, and checks by a few pages that it is the snapshot's.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn memory(&mut self, config: &MachineConfig) -> Result<GuestMemory, SnapshotError> {
        if let Some(socket) = &self.served_by {
            let (memory, layer) = uffd::map(config, socket)?;
            self.layers = Layers(vec![layer]);
            // Samples are not checked, because the handler would have to serve each page.
            self.check_mark(&memory, socket)?;
            return Ok(memory);
        }
        let path = &self.base.mem_file_path;
        let memory = self.layers.map(config);
        let memory = memory.map_err(|source| SnapshotError::Map {
            path: path.clone(),
            source,
        })?;
        self.check_mark(&memory, path)?;
        self.check_samples(&memory)?;
        Ok(memory)
    }

    fn check_mark(&self, memory: &GuestMemory, path: &Path) -> Result<(), SnapshotError> {
        let mut id = [0; ID_BYTES];
        let read = memory.read_slice(&mut id, GuestAddress(layout::SNAPSHOT_ID));
        if read.is_ok() && id == self.snapshot.id.as_bytes() {
            return Ok(());
        }
        let whose = match std::str::from_utf8(&id) {
            Ok(other) if other.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                format!("is the memory of snapshot {other}")
            }
            _ => "is not a snapshot's memory".into(),
        };
        let id = &self.snapshot.id;
        Err(invalid(path, format!("{whose}, and the state is of {id}")))
    }

    fn check_samples(&self, memory: &GuestMemory) -> Result<(), SnapshotError> {
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
                    "is damaged: page {} differs from what was saved (`bantam snapshot verify` checks all pages)",
                    sample.page
                ),
            )),
        }
    }
}
