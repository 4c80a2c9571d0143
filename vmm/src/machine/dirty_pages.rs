//! What a machine knows of its pages: those written since a snapshot or a fork, and those that files hold.

use super::memory::mapping;
use super::memory::page::PAGE;
use super::memory::page_set::PageSet;
use super::running::Machine;
use crate::vcpu::Job;
use devices::GuestMemory;
use std::io;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

impl Machine {
    /// The guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.context.memory
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
        for (slot, region) in (0_u32..).zip(self.context.memory.iter()) {
            let len = usize::try_from(region.len()).map_err(io::Error::other)?;
            let by_vcpus = self.context.vm.get_dirty_log(slot, len)?;
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
            mapping::give_to_kvm(&self.context.vm, &self.context.memory, true)
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

    /// Has the vCPUs' threads do `job` while the machine is held, and does `meanwhile` itself. A thread whose guest
    /// has ended does nothing, so the guest must not have ended.
    pub fn with_vcpu_threads<T>(&self, job: Job, meanwhile: impl FnOnce() -> T) -> T {
        match self.outcome() {
            Some(_) => meanwhile(),
            None => self.vcpus.run_job(job, meanwhile),
        }
    }
}
