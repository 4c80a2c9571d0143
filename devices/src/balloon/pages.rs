//! Releases guest pages to the host. When the guest next touches a released page it reads zeroes, or, if the page was mapped
//! from a file (a kernel, a snapshot, a fork), the file's content. The driver relies on neither. A released page counts as
//! written, so that the next snapshot or fork has what the guest would read.

use crate::GuestMemory;
use crate::virtio::buffers::{GuestSlice, mark};
use std::io;
use std::ops::Range;
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

/// Size of a balloon page in bytes, independent of the guest's page size (section 5.5.6).
const PAGE: usize = 4096;
const PAGE_64: u64 = 4096;

/// Sorts `pages`, page numbers in any order, into ranges of page numbers that are completely in guest memory. Also returns
/// the number of pages that are not.
pub(super) fn ranges(mem: &GuestMemory, mut pages: Vec<u32>) -> (Vec<Range<u64>>, usize) {
    pages.sort_unstable();
    pages.dedup();
    let all = pages.len();
    pages.retain(|page| {
        let at = GuestAddress(u64::from(*page) * PAGE_64);
        mem.check_range(at, PAGE, Permissions::Write)
    });
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for page in pages.iter().copied().map(u64::from) {
        match ranges.last_mut() {
            Some(last) if last.end == page => last.end += 1,
            _ => ranges.push(page..page + 1),
        }
    }
    (ranges, all - pages.len())
}

/// Returns the complete pages within `len` bytes at `address`; an empty range for an invalid address.
pub(super) fn whole(address: GuestAddress, len: usize) -> Range<u64> {
    let end = address.0.saturating_add(len as u64) / PAGE_64;
    let start = address.0.div_ceil(PAGE_64);
    start..end.max(start)
}

/// Releases a range of page numbers. Returns the number of bytes.
///
/// # Errors
/// Part of the range is outside guest memory, and nothing was released, or the host refused.
pub(super) fn release(mem: &GuestMemory, pages: &Range<u64>) -> io::Result<usize> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, e);
    // Page numbers were computed from addresses.
    let address = GuestAddress(pages.start.saturating_mul(PAGE_64));
    let bytes = (pages.end - pages.start).saturating_mul(PAGE_64);
    let len = usize::try_from(bytes).map_err(io::Error::other)?;
    if len == 0 {
        return Ok(0);
    }
    let slices = mem.get_slices(address, len, Permissions::Write);
    let slices = slices.and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let slices = slices.map_err(invalid)?;
    let shared = is_shared(mem);
    let done = slices.iter().try_for_each(|slice| match shared {
        true => free_shared(slice),
        false => advise(slice, libc::MADV_DONTNEED),
    });
    // A released page has changed.
    mark(&slices);
    done.map(|()| len)
}

/// Returns true if guest memory is mapped shared.
fn is_shared(mem: &GuestMemory) -> bool {
    use vm_memory::GuestMemoryBackend as _;
    mem.iter().any(|part| part.flags() & libc::MAP_SHARED != 0)
}

/// Releases memory of a forkable guest. It is mapped from a memory file, which would keep pages that are only unmapped.
/// After a fork the file is frozen, and the guest's own pages are private mappings.
fn free_shared(memory: &GuestSlice<'_>) -> io::Result<()> {
    match advise(memory, libc::MADV_REMOVE) {
        // The memory file is frozen, so the mapping is private.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            advise(memory, libc::MADV_DONTNEED)
        }
        done => done,
    }
}

#[expect(unsafe_code, reason = "madvise is a system call on an address")]
fn advise(memory: &GuestSlice<'_>, advice: libc::c_int) -> io::Result<()> {
    let address = memory.ptr_guard_mut().as_ptr();
    // SAFETY: the slice is mapped guest memory and stays mapped. Its bytes may change at any time, and nothing here assumes
    // their values.
    match unsafe { libc::madvise(address.cast(), memory.len(), advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
