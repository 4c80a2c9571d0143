//! Gives pages of the guest back to the host. The guest finds them again, when it next touches them,
//! as the host first laid them: zero, or for pages that are mapped from a file, of a kernel, a snapshot or the guest
//! that this one is a copy of, what the file has there. The driver counts on neither, and a page that went
//! counts as written, so that the next snapshot or copy has what the guest would find.

use crate::GuestMemory;
use crate::virtio::buffers::{GuestSlice, mark};
use std::io;
use std::ops::Range;
use vm_memory::{GuestAddress, GuestMemory as _, Permissions};

/// The balloon's page in bytes, whatever the guest's is (section 5.5.6).
const PAGE: usize = 4096;
const PAGE_64: u64 = 4096;

/// Those of `pages`, page numbers in any order, that are wholly in guest memory, as ranges of page
/// numbers; and how many are not.
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

/// The whole pages of `len` bytes at `address`; none of an address that cannot be.
pub(super) fn whole(address: GuestAddress, len: usize) -> Range<u64> {
    let end = address.0.saturating_add(len as u64) / PAGE_64;
    let start = address.0.div_ceil(PAGE_64);
    start..end.max(start)
}

/// Gives the pages of these numbers back; how many bytes.
///
/// # Errors
/// Part of the range is not in guest memory, when nothing is done, or the host refused.
pub(super) fn release(mem: &GuestMemory, pages: &Range<u64>) -> io::Result<usize> {
    let invalid = |e| io::Error::new(io::ErrorKind::InvalidInput, e);
    // Page numbers come from addresses.
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
    // A page that is gone has changed.
    mark(&slices);
    done.map(|()| len)
}

/// Whether it was mapped to be shared.
fn is_shared(mem: &GuestMemory) -> bool {
    use vm_memory::GuestMemoryBackend as _;
    mem.iter().any(|part| part.flags() & libc::MAP_SHARED != 0)
}

/// Frees memory of a guest that can be copied: it is mapped from a file in memory, which keeps pages that are only taken
/// off the page tables. Once the guest was copied that file is frozen, and what the guest has mapped there instead is its own.
fn free_shared(memory: &GuestSlice<'_>) -> io::Result<()> {
    match advise(memory, libc::MADV_REMOVE) {
        // It is not mapped to be shared any more.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            advise(memory, libc::MADV_DONTNEED)
        }
        done => done,
    }
}

#[expect(unsafe_code, reason = "madvise is a system call on an address")]
fn advise(memory: &GuestSlice<'_>, advice: libc::c_int) -> io::Result<()> {
    let address = memory.ptr_guard_mut().as_ptr();
    // SAFETY: the slice is mapped guest memory and stays mapped; its bytes change under our feet
    // anyway, so that nothing here assumes what they are.
    match unsafe { libc::madvise(address.cast(), memory.len(), advice) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
