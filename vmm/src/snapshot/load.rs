//! Reading a snapshot as far as a machine can be built from it.

use super::chain::Layers;
use super::links::{Link, links};
use super::view::View;
use super::{Base, Sample, Snapshot, SnapshotError, invalid};
use boot::layout;
use devices::GuestMemory;
use std::path::Path;
use vm_memory::{Bytes as _, GuestAddress};

/// Bytes of a snapshot's name.
pub(super) const ID_BYTES: usize = 16;

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
    })
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
