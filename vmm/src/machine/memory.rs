//! Guest memory: mapping it, and giving it to KVM.

use boot::FilePiece;
use devices::GuestMemory;
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use resources::{HugePages, MachineConfig};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use vm_memory::bitmap::{AtomicBitmap, Bitmap as _, NewBitmap as _};
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _, GuestRegionMmap,
};

/// Why guest memory cannot be had. Each text names the key.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has no room for the mapping.
    #[error(
        "machine-config.mem_size_mib: the host cannot map {mib} MiB{}",
        if *huge { ": are that many huge pages reserved (/proc/sys/vm/nr_hugepages)?" } else { "" }
    )]
    Map {
        /// Size of the guest's memory.
        mib: u64,
        /// Whether huge pages were asked for.
        huge: bool,
        /// Why.
        #[source]
        source: MmapRegionError,
    },
    /// The parts do not form a memory.
    #[error("machine-config.mem_size_mib: {0} MiB cannot be laid out")]
    Layout(u64),
    /// KVM refused a part.
    #[error("machine-config.mem_size_mib: KVM refused guest memory at {start:#x}")]
    Slot {
        /// Guest address.
        start: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Maps the memory that `config` asks for. The host's pages come as the guest touches them.
///
/// # Errors
/// [`MemoryError::Map`] or [`MemoryError::Layout`].
pub fn map(config: &MachineConfig) -> Result<GuestMemory, MemoryError> {
    warn_of_overcommit(config);
    map_from(config, None)
}

/// Maps the memory of `config` privately from `file`, which has all of it: its pages are read as the guest touches
/// them, and what the guest writes stays its own.
///
/// # Errors
/// As [`map`].
pub fn map_whole(config: &MachineConfig, file: &Arc<File>) -> Result<GuestMemory, MemoryError> {
    map_from(config, Some(file))
}

fn map_from(config: &MachineConfig, file: Option<&Arc<File>>) -> Result<GuestMemory, MemoryError> {
    let mib = config.mem_size_mib;
    let huge = config.huge_pages == HugePages::Hugetlb2M;
    let flags = match file {
        Some(_) => libc::MAP_PRIVATE | libc::MAP_NORESERVE,
        // Reserved at once: a guest that ran out of them later would die of SIGBUS.
        None if huge => {
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB
        }
        None => libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
    };
    let mut regions = Vec::new();
    let mut offset = 0;
    for (start, len) in boot::layout::ram_ranges(config.mem_bytes()) {
        let bytes = len;
        let len = usize::try_from(len).map_err(|_| MemoryError::Layout(mib))?;
        let mut region = MmapRegionBuilder::new_with_bitmap(len, bitmap(config, len))
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(flags);
        if let Some(file) = file {
            region = region.with_file_offset(FileOffset::from_arc(file.clone(), offset));
        }
        offset += bytes;
        let region = region
            .build()
            .map_err(|source| MemoryError::Map { mib, huge, source })?;
        if config.huge_pages == HugePages::Transparent {
            advise_huge(&region);
        }
        let region = GuestRegionMmap::new(region, GuestAddress(start));
        regions.push(region.ok_or(MemoryError::Layout(mib))?);
    }
    GuestMemory::from_regions(regions).map_err(|_| MemoryError::Layout(mib))
}

/// Where devices note the pages they write in `len` bytes of memory, if the guest's writes are tracked, too.
pub fn bitmap(config: &MachineConfig, len: usize) -> Option<AtomicBitmap> {
    config
        .track_dirty_pages
        .then(|| AtomicBitmap::with_len(len))
}

fn warn_of_overcommit(config: &MachineConfig) {
    let Ok(info) = nix::sys::sysinfo::sysinfo() else {
        return;
    };
    if config.mem_bytes() > info.ram_total() {
        log::warn!(
            "machine-config.mem_size_mib: is {}, and the host has {} MiB: a guest that uses it all \
             will swap or be killed",
            config.mem_size_mib,
            info.ram_total() >> 20
        );
    }
}

#[expect(unsafe_code, reason = "madvise is an unsafe function")]
fn advise_huge(region: &vm_memory::MmapRegion<Option<AtomicBitmap>>) {
    // SAFETY: the range is the mapping we just made and that nobody else knows of; the advice
    // changes which pages back it, not what it holds.
    let advised =
        unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) };
    if advised != 0 {
        let e = io::Error::last_os_error();
        log::warn!("machine-config.huge_pages: the host has no transparent huge pages: {e}");
    }
}

/// Maps part of a kernel or initrd where it belongs in guest memory, privately: nothing is read until the
/// guest touches it, and guests share it in the page cache. Returns false if that cannot be done
/// and the bytes must be copied.
///
/// A guest dies of SIGBUS if the file is cut short while it runs, and sees what is written into it in
/// place, where it has not touched it yet; replacing a kernel by renaming, as packages do, leaves
/// the mapped file as it was.
#[expect(unsafe_code, reason = "mapping over guest memory")]
pub fn map_file(memory: &GuestMemory, piece: &FilePiece<'_>) -> bool {
    let start = GuestAddress(piece.guest_addr);
    let (Ok(len), Ok(offset)) = (
        usize::try_from(piece.len),
        libc::off_t::try_from(piece.file_offset),
    ) else {
        return false;
    };
    // The whole piece in one region, or its host addresses are not contiguous.
    let Ok(slice) = memory.get_slice(start, len) else {
        return false;
    };
    let address = slice.ptr_guard_mut().as_ptr();
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: the range is guest memory, which we mapped, which no reference in Rust points
    // into, and which the guest does not run in yet: replacing its pages loses only zeroes. The region's
    // own unmapping at the end covers the new mapping.
    let mapped = unsafe {
        libc::mmap(
            address.cast(),
            len,
            protection,
            flags,
            piece.file.as_raw_fd(),
            offset,
        )
    };
    if mapped != libc::MAP_FAILED {
        // Not zero any more.
        slice.bitmap().mark_dirty(0, len);
        return true;
    }
    // The failed call may have taken the old pages away: put empty ones in their place.
    // SAFETY: as above.
    let restored = unsafe {
        let flags = flags | libc::MAP_ANONYMOUS;
        libc::mmap(address.cast(), len, protection, flags, -1, 0)
    };
    if restored == libc::MAP_FAILED {
        log::error!("guest memory at {:#x} is lost", piece.guest_addr);
    }
    false
}

/// Makes `memory` the VM's, a slot for each part; with `log_writes` KVM notes which pages vCPUs write.
///
/// # Errors
/// [`MemoryError::Slot`].
#[expect(unsafe_code, reason = "KVM takes host addresses as numbers")]
pub fn give_to_kvm(vm: &VmFd, memory: &GuestMemory, log_writes: bool) -> Result<(), MemoryError> {
    for (slot, region) in (0_u32..).zip(memory.iter()) {
        let start = region.start_addr().0;
        let part = kvm_userspace_memory_region {
            slot,
            flags: if log_writes {
                KVM_MEM_LOG_DIRTY_PAGES
            } else {
                0
            },
            guest_phys_addr: start,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is a mapping of exactly this length. The machine keeps the memory until the
        // process ends, and nothing in Rust holds a reference into it: all accesses are volatile.
        let set = unsafe { vm.set_user_memory_region(part) };
        set.map_err(|e| MemoryError::Slot {
            start,
            source: e.into(),
        })?;
    }
    Ok(())
}
