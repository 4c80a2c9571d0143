//! The bookkeeping of a machine's pages: which are in files, and which were written since a snapshot or a freeze.

use super::memory::layers::Layers;
use super::memory::page::PAGE;
use super::memory::page_set::PageSet;
use boot::FilePiece;
use devices::GuestMemory;
use resources::MachineConfig;
use std::fs::File;
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// The bookkeeping of a machine's pages.
pub struct Pages {
    /// The regions of the memory: guest address and bytes.
    pub(super) parts: Vec<(u64, u64)>,
    /// The layers that the memory is mapped from, if it was restored or frozen.
    pub(super) layers: Layers,
    /// Ranges of the memory that are mapped from kernel and initrd, as offset in a memory file and length.
    pub(super) kernel_ranges: Vec<(u64, u64)>,
    /// The memory file of a forkable machine that was not frozen yet.
    pub(super) file: Option<Arc<File>>,
    /// Pages written since the last snapshot; `None` if they are not tracked.
    pub(super) since_snapshot: Option<PageSet>,
    /// Pages written since the memory was frozen; `None` if it was not, or never will be.
    pub(super) since_freeze: Option<PageSet>,
}

impl Pages {
    /// Creates the bookkeeping of `memory`, which is mapped from `layers` or shared with `file`, if any.
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
            since_snapshot: config.track_dirty_pages.then(none),
            since_freeze: frozen.then(none),
            parts,
            layers,
            file,
            kernel_ranges: Vec::new(),
        }
    }

    /// Returns whether KVM must log the writes of vCPUs from the start.
    pub(super) fn log_writes(&self) -> bool {
        self.since_snapshot.is_some() || self.since_freeze.is_some()
    }

    pub(super) fn pages(&self) -> u64 {
        self.parts.iter().map(|(_, len)| len / PAGE).sum()
    }

    /// Records that a part of kernel or initrd was mapped.
    pub(super) fn mapped_from_file(&mut self, piece: &FilePiece<'_>) {
        let mut offset = 0;
        for (start, len) in &self.parts {
            if let Some(within) = piece.guest_addr.checked_sub(*start).filter(|at| at < len) {
                self.kernel_ranges.push((offset + within, piece.len));
            }
            offset += len;
        }
    }
}
