//! Dirty tracking: the pages written since a snapshot or a fork, and the pages whose content is in files.

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
    /// Returns the guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.context.memory
    }

    /// Returns and resets the pages written since the last call, or since the guest began. `None` without dirty tracking
    /// (`track_dirty_pages`). The machine must be paused.
    ///
    /// # Errors
    /// KVM refused its dirty log.
    pub fn take_dirty(&mut self) -> io::Result<Option<PageSet>> {
        if self.pages.since_snapshot.is_none() {
            return Ok(None);
        }
        self.collect_writes()?;
        let none = PageSet::empty(self.pages.pages());
        let since_snapshot = self.pages.since_snapshot.as_mut();
        Ok(since_snapshot.map(|since_snapshot| std::mem::replace(since_snapshot, none)))
    }

    /// Collects the pages written since the last call from KVM and the devices, for all consumers.
    fn collect_writes(&mut self) -> io::Result<()> {
        let mut first = 0;
        for (slot, region) in (0_u32..).zip(self.context.memory.iter()) {
            let len = usize::try_from(region.len()).map_err(io::Error::other)?;
            let by_vcpus = self.context.vm.get_dirty_log(slot, len)?;
            // KVM's log does not contain writes of devices.
            let by_devices = (**region).bitmap().as_ref();
            let by_devices = by_devices.map(AtomicBitmap::get_and_reset);
            let sets = [&mut self.pages.since_snapshot, &mut self.pages.since_freeze];
            for set in sets.into_iter().flatten() {
                set.insert_words(first, &by_vcpus);
                set.insert_words(first, by_devices.as_deref().unwrap_or_default());
            }
            first += region.len() / PAGE;
        }
        Ok(())
    }

    /// Starts dirty logging for the next freeze of the memory.
    pub(super) fn track(&mut self) -> io::Result<()> {
        let pages = self.pages.pages();
        if !self.pages.log_writes() {
            mapping::register_with_kvm(&self.context.vm, &self.context.memory, true)
                .map_err(io::Error::other)?;
        }
        self.pages
            .since_freeze
            .get_or_insert_with(|| PageSet::empty(pages));
        Ok(())
    }

    /// Returns and resets the pages written since the last call, or since the memory was first frozen.
    pub(super) fn take_changed(&mut self) -> io::Result<PageSet> {
        self.collect_writes()?;
        let none = PageSet::empty(self.pages.pages());
        let written = self.pages.since_freeze.as_mut();
        let written = written.map(|written| std::mem::replace(written, none));
        written.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }

    /// Undoes [`Self::take_changed`]: the next call returns these pages again.
    pub(super) fn return_changed(&mut self, changed: &PageSet) {
        if let Some(written) = &mut self.pages.since_freeze {
            written.extend(changed);
        }
    }

    /// Undoes [`Self::take_dirty`]: the next call returns these pages again.
    pub fn return_dirty(&mut self, dirty: &PageSet) {
        if let Some(since_snapshot) = &mut self.pages.since_snapshot {
            since_snapshot.extend(dirty);
        }
    }

    /// Returns the ranges of a memory file, as offset and length, whose content may come from a file without having been
    /// touched.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn file_ranges(&self) -> io::Result<Vec<(u64, u64)>> {
        let bytes = self.pages.parts.iter().map(|(_, len)| len).sum();
        let mut all = self.pages.layers.data(bytes)?;
        all.extend(&self.pages.kernel_ranges);
        Ok(all)
    }

    /// Returns whether the memory was mapped from one file that holds all pages.
    pub fn is_based_on_one_file(&self) -> bool {
        matches!(self.pages.layers.0.as_slice(), [layer] if layer.runs.is_none())
    }

    /// Runs `job` on the vCPU threads of the paused machine, and `meanwhile` on this one. If the guest has ended, only
    /// `meanwhile` runs, because the vCPU threads run nothing any more.
    pub fn with_vcpu_threads<T>(&self, job: Job, meanwhile: impl FnOnce() -> T) -> T {
        match self.outcome() {
            Some(_) => meanwhile(),
            None => self.vcpus.run_job(job, meanwhile),
        }
    }
}
