//! What is known of a machine's pages: where those that nobody touched yet are, and which were written since a
//! snapshot.

use super::running::Machine;
use crate::snapshot::Layers;
use crate::snapshot::page_set::PageSet;
use crate::snapshot::runs::PAGE;
use crate::vcpu::Errand;
use boot::FilePiece;
use devices::GuestMemory;
use std::io;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// See the module.
pub struct Pages {
    /// The parts of the memory: guest address and bytes.
    parts: Vec<(u64, u64)>,
    /// The files that a restored machine's memory was mapped from.
    layers: Layers,
    /// What was mapped from the files that it booted, by its place in a memory file.
    booted: Vec<(u64, u64)>,
    /// Pages whose writing was noted before: of a snapshot that failed.
    noted: Option<PageSet>,
}

impl Pages {
    /// Of `memory`, which was mapped from `layers`, if any; `tracked` if KVM notes what is written.
    pub(super) fn new(memory: &GuestMemory, layers: Layers, tracked: bool) -> Self {
        let parts: Vec<_> = memory
            .iter()
            .map(|region| (region.start_addr().0, region.len()))
            .collect();
        let pages = parts.iter().map(|(_, len)| len / PAGE).sum();
        Self {
            noted: tracked.then(|| PageSet::empty(pages)),
            parts,
            layers,
            booted: Vec::new(),
        }
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

impl Machine {
    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.guest.memory
    }

    /// The pages written since this was asked last, or since the guest began; `None` if nobody notes them
    /// (`track_dirty_pages`). The machine is held.
    ///
    /// # Errors
    /// KVM does not tell.
    pub fn take_dirty(&mut self) -> io::Result<Option<PageSet>> {
        let Some(noted) = &mut self.pages.noted else {
            return Ok(None);
        };
        let pages = self.pages.parts.iter().map(|(_, len)| len / PAGE).sum();
        let mut dirty = std::mem::replace(noted, PageSet::empty(pages));
        let mut first = 0;
        for (slot, region) in (0_u32..).zip(self.guest.memory.iter()) {
            let len = usize::try_from(region.len()).map_err(io::Error::other)?;
            let words = self.guest.vm.get_dirty_log(slot, len);
            let words = words.inspect_err(|_| noted.extend(&dirty))?;
            dirty.insert_words(first, &words);
            // What devices wrote, KVM does not see.
            if let Some(bitmap) = (**region).bitmap() {
                dirty.insert_words(first, &bitmap.get_and_reset());
            }
            first += region.len() / PAGE;
        }
        Ok(Some(dirty))
    }

    /// Puts back what [`Self::take_dirty`] gave: it is to be given again.
    pub fn return_dirty(&mut self, dirty: &PageSet) {
        if let Some(noted) = &mut self.pages.noted {
            noted.extend(dirty);
        }
    }

    /// Where in a memory file pages may hold something though nobody has touched them, as offset and length.
    ///
    /// # Errors
    /// A file's.
    pub fn pages_in_files(&self) -> io::Result<Vec<(u64, u64)>> {
        let bytes = self.pages.parts.iter().map(|(_, len)| len).sum();
        let mut all = self.pages.layers.data(bytes)?;
        all.extend(&self.pages.booted);
        Ok(all)
    }

    /// Whether the memory was mapped from one file that has all of it.
    pub fn is_based_on_one_file(&self) -> bool {
        matches!(self.pages.layers.0.as_slice(), [layer] if layer.runs.is_none())
    }

    /// Has the vCPUs' threads do `errand` while the machine is held, and does `meanwhile` itself. A thread whose guest
    /// has ended does nothing, so the guest must not have ended.
    pub fn with_vcpu_threads<T>(&self, errand: Errand, meanwhile: impl FnOnce() -> T) -> T {
        match self.outcome() {
            Some(_) => meanwhile(),
            None => self.vcpus.send(errand, meanwhile),
        }
    }
}
