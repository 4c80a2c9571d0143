//! Ranges of bytes, as offset and length.

use super::page::PAGE_BYTES;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileExt as _;

/// Returns the ranges of `file` that hold data. On a file system without holes the whole file holds data.
///
/// # Errors
/// The file cannot be read.
pub fn data_in(file: &File, len: u64) -> io::Result<Vec<(u64, u64)>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < len {
        let Some(start) = seek(file, at, libc::SEEK_DATA)? else {
            break;
        };
        let end = seek(file, start, libc::SEEK_HOLE)?.unwrap_or(len).min(len);
        if end <= start {
            break;
        }
        found.push((start, end - start));
        at = end;
    }
    Ok(found)
}

/// Moves to the next data or hole. Returns `None` at the end of the file.
#[expect(unsafe_code, reason = "lseek is an unsafe function")]
fn seek(file: &File, from: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let from = libc::off_t::try_from(from).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and nothing depends on its position.
    let at = unsafe { libc::lseek(file.as_raw_fd(), from, whence) };
    match u64::try_from(at) {
        Ok(at) => Ok(Some(at)),
        Err(_) => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            e => Err(e),
        },
    }
}

/// Returns the range of `runs`, which are in order, that contains the byte at `at`.
pub fn holding(runs: &[(u64, u64)], at: u64) -> Option<(u64, u64)> {
    let after = runs.partition_point(|(offset, _)| *offset <= at);
    let (offset, len) = *runs.get(after.checked_sub(1)?)?;
    (at < offset + len).then_some((offset, len))
}

/// Reads `len` bytes of `file` from `start` on, and calls `each` with every page and its offset.
///
/// # Errors
/// An error of the file or of `each`.
pub fn read_pages(
    file: &File,
    (start, len): (u64, u64),
    mut each: impl FnMut(&[u8], u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut page = vec![0; PAGE_BYTES];
    for at in (start..start + len).step_by(PAGE_BYTES) {
        file.read_exact_at(&mut page, at)?;
        each(&page, at)?;
    }
    Ok(())
}
