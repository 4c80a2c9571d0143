//! Maps guest memory and gives it to KVM.

use boot::FilePiece;
use devices::GuestMemory;
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use resources::{HugePages, MachineConfig};
use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use vm_memory::bitmap::{AtomicBitmap, Bitmap as _, NewBitmap as _};
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    FileOffset, GuestAddress, GuestMemoryBackend as _, GuestMemoryRegion as _, GuestRegionMmap,
};

/// Why guest memory cannot be mapped. Each text names the key.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The host has no room for the mapping.
    #[error(
        "machine-config.mem_size_mib: the host cannot map {mib} MiB{}",
        if *huge { ": are that many huge pages reserved (/proc/sys/vm/nr_hugepages)?" } else { "" }
    )]
    Map {
        /// Size of the guest's memory in MiB.
        mib: u64,
        /// Whether huge pages were asked for.
        huge: bool,
        /// The cause.
        #[source]
        source: MmapRegionError,
    },
    /// The host cannot create the memory file.
    #[error("machine-config.forkable: the host cannot create a memory file of {mib} MiB")]
    File {
        /// Size of the guest's memory in MiB.
        mib: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The regions do not form a memory.
    #[error("machine-config.mem_size_mib: {0} MiB cannot be laid out")]
    Layout(u64),
    /// KVM refused a region.
    #[error("machine-config.mem_size_mib: KVM refused guest memory at {start:#x}")]
    Slot {
        /// Guest address of the region.
        start: u64,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// The backing of guest memory.
#[derive(Clone, Copy)]
enum Backing<'a> {
    /// Anonymous memory of the host.
    Anonymous,
    /// A file with all pages, mapped privately: the guest's writes do not reach it.
    Private(&'a Arc<File>),
    /// A memory file, mapped shared: it holds the guest's writes.
    Shared(&'a Arc<File>),
}

/// Maps the memory that `config` asks for. The host allocates pages when the guest touches them.
///
/// # Errors
/// [`MemoryError::Map`] or [`MemoryError::Layout`].
pub fn map(config: &MachineConfig) -> Result<GuestMemory, MemoryError> {
    warn_of_overcommit(config);
    map_from(config, Backing::Anonymous)
}

/// Maps the memory of a forkable guest: a memory file that others can map when it is frozen.
///
/// # Errors
/// [`MemoryError::File`], and as [`map`].
pub fn map_forkable(config: &MachineConfig) -> Result<(GuestMemory, Arc<File>), MemoryError> {
    warn_of_overcommit(config);
    let mib = config.mem_size_mib;
    let file = file_in_memory(c"guest-memory", config.mem_bytes());
    let file = Arc::new(file.map_err(|source| MemoryError::File { mib, source })?);
    Ok((map_from(config, Backing::Shared(&file))?, file))
}

/// Maps the memory of `config` privately from `file`, which holds all pages.
///
/// # Errors
/// As [`map`].
pub fn map_whole(config: &MachineConfig, file: &Arc<File>) -> Result<GuestMemory, MemoryError> {
    map_from(config, Backing::Private(file))
}

/// Creates an unnamed memory file of `len` bytes.
///
/// # Errors
/// The host refused the file.
pub fn file_in_memory(name: &CStr, len: u64) -> io::Result<File> {
    let file = File::from(memfd_create(
        name,
        MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING,
    )?);
    file.set_len(len)?;
    Ok(file)
}

/// Seals `file`: a process that receives it can neither write to it nor resize it. Existing mappings stay writable.
///
/// # Errors
/// The host refused the seals.
pub fn seal(file: &File) -> io::Result<()> {
    let mode = OFlag::from_bits_retain(fcntl(file, FcntlArg::F_GETFL)?);
    if mode & OFlag::O_ACCMODE == OFlag::O_RDONLY {
        // A file on a disk that is open for reading only.
        return Ok(());
    }
    // F_SEAL_WRITE would make the kernel look at each page. No writable mapping exists.
    let future_write = SealFlag::from_bits_retain(F_SEAL_FUTURE_WRITE);
    let seals =
        future_write | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    match fcntl(file, FcntlArg::F_ADD_SEALS(seals)) {
        // The file is sealed, now or before.
        Ok(_) | Err(nix::Error::EPERM) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn map_from(config: &MachineConfig, backing: Backing<'_>) -> Result<GuestMemory, MemoryError> {
    let mib = config.mem_size_mib;
    let huge = config.huge_pages == HugePages::Hugetlb2M;
    let (flags, file) = match backing {
        Backing::Private(file) => (libc::MAP_PRIVATE | libc::MAP_NORESERVE, Some(file)),
        Backing::Shared(file) => (libc::MAP_SHARED | libc::MAP_NORESERVE, Some(file)),
        // Huge pages are reserved at once: a guest that ran out of them later would die of SIGBUS.
        Backing::Anonymous if huge => (
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB,
            None,
        ),
        Backing::Anonymous => (
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            None,
        ),
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

/// Seal of linux/fcntl.h against new ways to write to the file, since Linux 5.1.
const F_SEAL_FUTURE_WRITE: libc::c_int = 0x10;

/// Bytes mapped again at a time while the guest runs, aligned to the ranges of page tables: the guest may wait for one.
const RENEW: usize = 16 << 20;

/// Maps `memory`, which [`map_forkable`] mapped from `file`, again in place while the guest runs, to free its page tables
/// before the pause. No data is lost, because the file holds it; the guest faults its pages in again.
///
/// # Errors
/// The host refused a mapping: the guest must not resume.
pub fn renew(memory: &GuestMemory, file: &File) -> io::Result<()> {
    let mut offset = 0;
    for region in memory.iter() {
        let mut at = 0;
        while at < region.size() {
            let address = region.as_ptr() as usize + at;
            let len = (RENEW - address % RENEW).min(region.size() - at);
            map_again(
                region.as_ptr().wrapping_add(at),
                len,
                libc::MAP_SHARED,
                file,
                offset + at,
            )?;
            at += len;
        }
        offset += region.size();
    }
    Ok(())
}

/// Maps `memory`, which [`map_forkable`] mapped from `file`, privately in place. From now on the file does not change, and
/// the guest's writes go to pages of its own. The guest must be paused.
///
/// # Errors
/// The host refused a mapping: the guest must not resume.
pub fn freeze(memory: &GuestMemory, file: &File) -> io::Result<()> {
    let mut offset = 0;
    for region in memory.iter() {
        map_again(
            region.as_ptr(),
            region.size(),
            libc::MAP_PRIVATE,
            file,
            offset,
        )?;
        offset += region.size();
    }
    Ok(())
}

/// Maps `len` bytes of guest memory at `start` from the place in `file` that they are mapped from already.
#[expect(unsafe_code, reason = "mapping over guest memory")]
fn map_again(
    start: *mut u8,
    len: usize,
    sharing: libc::c_int,
    file: &File,
    offset: usize,
) -> io::Result<()> {
    let offset = libc::off_t::try_from(offset).map_err(io::Error::other)?;
    // SAFETY: the callers pass ranges of guest memory that are mapped shared from this place of this file, so their
    // content does not change; a thread that touches them meanwhile waits in the kernel.
    unsafe { map_over(start, len, sharing, Some((file, offset))) }
}

/// Replaces `len` bytes of guest memory at `start` by a mapping of `file` at an offset, or by zeroes.
///
/// # Safety
/// The range must be guest memory that no Rust reference points into, and whose content may be replaced.
#[expect(unsafe_code, reason = "mapping over guest memory")]
unsafe fn map_over(
    start: *mut u8,
    len: usize,
    sharing: libc::c_int,
    file: Option<(&File, libc::off_t)>,
) -> io::Result<()> {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    let flags = sharing | libc::MAP_FIXED | libc::MAP_NORESERVE;
    let (flags, fd, offset) = match file {
        Some((file, offset)) => (flags, file.as_raw_fd(), offset),
        None => (flags | libc::MAP_ANONYMOUS, -1, 0),
    };
    // SAFETY: the caller vouches for the range. The region's own unmapping covers the new mapping.
    let mapped = unsafe { libc::mmap(start.cast(), len, protection, flags, fd, offset) };
    match mapped {
        libc::MAP_FAILED => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Returns the bitmap in which devices mark the pages they write, if dirty tracking is on.
pub fn bitmap(config: &MachineConfig, len: usize) -> Option<AtomicBitmap> {
    (config.track_dirty_pages || config.forkable).then(|| AtomicBitmap::with_len(len))
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
    // SAFETY: the range is the new mapping, which nothing else uses yet. The advice changes which pages back it, not
    // their content.
    let advised =
        unsafe { libc::madvise(region.as_ptr().cast(), region.size(), libc::MADV_HUGEPAGE) };
    if advised != 0 {
        let e = io::Error::last_os_error();
        log::warn!("machine-config.huge_pages: the host has no transparent huge pages: {e}");
    }
}

/// Maps part of a kernel or initrd privately at its place in guest memory: nothing is read until the guest touches it, and
/// guests share it in the page cache. Returns false if the bytes must be copied instead.
///
/// If the file is truncated while the guest runs, the guest dies of SIGBUS. A write to the file in place is visible on pages
/// that the guest has not touched yet. Replacing a kernel by rename, as packages do, leaves the mapped file unchanged.
#[expect(unsafe_code, reason = "mapping over guest memory")]
pub fn map_file(memory: &GuestMemory, piece: &FilePiece<'_>) -> bool {
    let start = GuestAddress(piece.guest_addr);
    let (Ok(len), Ok(offset)) = (
        usize::try_from(piece.len),
        libc::off_t::try_from(piece.file_offset),
    ) else {
        return false;
    };
    // The whole piece must lie in one region, or its host addresses are not contiguous.
    let Ok(slice) = memory.get_slice(start, len) else {
        return false;
    };
    let address = slice.ptr_guard_mut().as_ptr();
    // SAFETY: the range is guest memory that no Rust reference points into, and the guest does not run yet: only zeroes
    // are replaced.
    let mapped = unsafe { map_over(address, len, libc::MAP_PRIVATE, Some((piece.file, offset))) };
    if mapped.is_ok() {
        // The pages are not zero any more.
        slice.bitmap().mark_dirty(0, len);
        return true;
    }
    // The failed call may have removed the old pages: put empty ones in their place.
    // SAFETY: as above.
    let restored = unsafe { map_over(address, len, libc::MAP_PRIVATE, None) };
    if restored.is_err() {
        log::error!("guest memory at {:#x} is lost", piece.guest_addr);
    }
    false
}

/// Sets `memory` as the memory of `vm`, one slot for each region. With `log_writes` KVM logs the pages that vCPUs write.
///
/// # Errors
/// [`MemoryError::Slot`].
#[expect(unsafe_code, reason = "KVM takes host addresses as numbers")]
pub fn register_with_kvm(
    vm: &VmFd,
    memory: &GuestMemory,
    log_writes: bool,
) -> Result<(), MemoryError> {
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
        // SAFETY: the range is a mapping of exactly this length. The machine keeps the memory until the process ends, and no
        // Rust reference points into it: all accesses are volatile.
        let set = unsafe { vm.set_user_memory_region(part) };
        set.map_err(|e| MemoryError::Slot {
            start,
            source: e.into(),
        })?;
    }
    Ok(())
}
