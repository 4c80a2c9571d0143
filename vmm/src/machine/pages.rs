//! What is known of a machine's pages: where those that nobody touched yet are, and which were written since a
//! snapshot.

use super::memory;
use super::running::Machine;
use crate::snapshot::Layers;
use crate::snapshot::page_set::PageSet;
use crate::snapshot::runs::PAGE;
use crate::vcpu::Errand;
use boot::FilePiece;
use devices::GuestMemory;
use resources::MachineConfig;
use std::fs::File;
use std::io;
use std::sync::Arc;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// See the module.
pub struct Pages {
    /// The parts of the memory: guest address and bytes.
    parts: Vec<(u64, u64)>,
    /// The files that a machine's memory is mapped from, if it was restored or frozen.
    pub(super) layers: Layers,
    /// What was mapped from the files that it booted, by its place in a memory file.
    booted: Vec<(u64, u64)>,
    /// The file that is the memory of a machine that can be forked, and was not yet.
    pub(super) file: Option<Arc<File>>,
    /// Pages written since the last snapshot, as far as they were asked for; `None` if nobody wants to know.
    noted: Option<PageSet>,
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

    fn pages(&self) -> u64 {
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
        if self.pages.noted.is_none() {
            return Ok(None);
        }
        self.note_writes()?;
        let none = PageSet::empty(self.pages.pages());
        let noted = self.pages.noted.as_mut();
        Ok(noted.map(|noted| std::mem::replace(noted, none)))
    }

    /// Asks KVM and the devices what was written since they were asked last, for all who want to know.
    fn note_writes(&mut self) -> io::Result<()> {
        let mut first = 0;
        for (slot, region) in (0_u32..).zip(self.guest.memory.iter()) {
            let len = usize::try_from(region.len()).map_err(io::Error::other)?;
            let by_vcpus = self.guest.vm.get_dirty_log(slot, len)?;
            // What devices wrote, KVM does not see.
            let by_devices = (**region).bitmap().as_ref();
            let by_devices = by_devices.map(AtomicBitmap::get_and_reset);
            let sets = [&mut self.pages.noted, &mut self.pages.written];
            for set in sets.into_iter().flatten() {
                set.insert_words(first, &by_vcpus);
                set.insert_words(first, by_devices.as_deref().unwrap_or_default());
            }
            first += region.len() / PAGE;
        }
        Ok(())
    }

    /// Has KVM note what vCPUs write from now on, for the next time the memory is frozen.
    pub(super) fn track(&mut self) -> io::Result<()> {
        let pages = self.pages.pages();
        if !self.pages.log_writes() {
            memory::give_to_kvm(&self.guest.vm, &self.guest.memory, true)
                .map_err(io::Error::other)?;
        }
        self.pages
            .written
            .get_or_insert_with(|| PageSet::empty(pages));
        Ok(())
    }

    /// The pages written since this was asked last, or since the memory was frozen first.
    pub(super) fn take_changed(&mut self) -> io::Result<PageSet> {
        self.note_writes()?;
        let none = PageSet::empty(self.pages.pages());
        let written = self.pages.written.as_mut();
        let written = written.map(|written| std::mem::replace(written, none));
        written.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Puts back what [`Self::take_changed`] gave.
    pub(super) fn return_changed(&mut self, changed: &PageSet) {
        if let Some(written) = &mut self.pages.written {
            written.extend(changed);
        }
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
