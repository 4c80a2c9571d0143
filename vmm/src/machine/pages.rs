//! What is known of a machine's pages: where those that nobody touched yet are, and which were written since a
//! snapshot.

use super::memory::layers::Layers;
use super::memory::page::PAGE;
use super::memory::page_set::PageSet;
use boot::FilePiece;
use devices::GuestMemory;
use resources::MachineConfig;
use std::fs::File;
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// See the module.
pub struct Pages {
    /// The parts of the memory: guest address and bytes.
    pub(super) parts: Vec<(u64, u64)>,
    /// The files that a machine's memory is mapped from, if it was restored or frozen.
    pub(super) layers: Layers,
    /// What was mapped from the files that it booted, by its place in a memory file.
    pub(super) booted: Vec<(u64, u64)>,
    /// The file that is the memory of a machine that can be forked, and was not yet.
    pub(super) file: Option<Arc<File>>,
    /// Pages written since the last snapshot, as far as they were asked for; `None` if nobody wants to know.
    pub(super) noted: Option<PageSet>,
    /// Likewise since the memory was frozen; `None` if it was not, or never will be.
    pub(super) written: Option<PageSet>,
}

impl Pages {
    /// Of `memory`, as `config` has it, which is mapped from `layers` or shares `file`, if any.
    pub(super) fn new(
        memory: &GuestMemory,
        config: &MachineConfig,
        layers: Layers,
        file: Option<Arc<File>>,
    ) -> Self {
        let parts: Vec<_> = memory
            .iter()
            .map(|region| (region.start_addr().0, region.len()))
            .collect();
        let pages = parts.iter().map(|(_, len)| len / PAGE).sum();
        let none = || PageSet::empty(pages);
        let frozen = config.forkable && !layers.0.is_empty();
        Self {
            noted: config.track_dirty_pages.then(none),
            written: frozen.then(none),
            parts,
            layers,
            file,
            booted: Vec::new(),
        }
    }

    /// Whether KVM is to note what vCPUs write, from the beginning.
    pub(super) fn log_writes(&self) -> bool {
        self.noted.is_some() || self.written.is_some()
    }

    pub(super) fn pages(&self) -> u64 {
        self.parts.iter().map(|(_, len)| len / PAGE).sum()
    }

    /// A piece of a kernel or the like was mapped.
    pub(super) fn mapped_from_file(&mut self, piece: &FilePiece<'_>) {
        let mut offset = 0;
        for (start, len) in &self.parts {
            if let Some(within) = piece.guest_addr.checked_sub(*start).filter(|at| at < len) {
                self.booted.push((offset + within, piece.len));
            }
            offset += len;
        }
    }
}
