//! The working set: the pages that a restored guest touches first, approximately in order. The first restore with prefetch
//! writes it to a file beside the memory, and later restores read it.
//!
//! ```text
//!  0  "BANTAMWS"
//!  8  u32  version of the format        little-endian, like all numbers
//! 12  the snapshot's id, 16 characters
//! 28  u32  runs
//! 32  a run: u32 first page, u32 pages; the highest bit of the second is set if the guest wrote to them
//!  …  u32  CRC-32 of all bytes before
//! ```
//!
//! The bytes are not trusted. At worst, wrong pages are read ahead.

use super::contents::ID_BYTES;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

const MAGIC: [u8; 8] = *b"BANTAMWS";
const VERSION: u32 = 1;
/// Size of the header in bytes.
const HEADER: usize = 32;
/// Size of a run in bytes.
const ENTRY: usize = 8;
/// Size of the checksum in bytes.
const TRAILER: usize = 4;
/// Limit of runs. As many single pages are 4 GiB.
pub const MAX_RUNS: usize = 1 << 20;
const WRITTEN: u32 = 1 << 31;

/// A run of pages that were touched at about the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// Index of the first page in the memory file.
    pub start: u32,
    /// Number of pages, at least one.
    pub pages: u32,
    /// Whether the guest wrote to the pages.
    pub written: bool,
}

/// Why a working set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WorkingSetError {
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// The file has another format.
    #[error("it is not a working set that this version knows")]
    Magic,
    /// The working set belongs to another snapshot.
    #[error("it is of another snapshot")]
    Other,
    /// The file is damaged.
    #[error("it is damaged")]
    Damaged,
}

/// Returns the path of the working set of the memory file `path`.
pub fn path_for(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".workingset");
    name.into()
}

/// Returns the bytes of a working set file.
pub fn encode(id: &str, runs: &[Touched]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + runs.len() * ENTRY + TRAILER);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(id.as_bytes());
    bytes.extend(u32::try_from(runs.len()).unwrap_or(u32::MAX).to_le_bytes());
    for run in runs {
        bytes.extend(run.start.to_le_bytes());
        let written = if run.written { WRITTEN } else { 0 };
        bytes.extend((run.pages | written).to_le_bytes());
    }
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes
}

/// Parses the working set of the snapshot `id`, whose memory has `pages` pages.
///
/// # Errors
/// [`WorkingSetError`].
pub fn decode(bytes: &[u8], id: &str, pages: u64) -> Result<Vec<Touched>, WorkingSetError> {
    let start = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
    let rest = bytes
        .strip_prefix(start.as_slice())
        .ok_or(WorkingSetError::Magic)?;
    let (body, crc) = bytes
        .split_last_chunk::<TRAILER>()
        .ok_or(WorkingSetError::Damaged)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return Err(WorkingSetError::Damaged);
    }
    let (of, _) = rest
        .split_first_chunk::<ID_BYTES>()
        .ok_or(WorkingSetError::Damaged)?;
    if of != id.as_bytes() {
        return Err(WorkingSetError::Other);
    }
    let (count, entries) = body
        .get(HEADER - size_of::<u32>()..)
        .and_then(<[u8]>::split_first_chunk)
        .ok_or(WorkingSetError::Damaged)?;
    let (entries, odd) = entries.as_chunks::<ENTRY>();
    if !odd.is_empty() || u32::from_le_bytes(*count) as usize != entries.len() {
        return Err(WorkingSetError::Damaged);
    }
    let mut runs = Vec::with_capacity(entries.len());
    let mut sum = 0;
    for entry in entries {
        let (words, _) = entry.as_chunks::<4>();
        let mut words = words.iter().map(|word| u32::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or_default();
        let (start, count) = (next(), next());
        let run = Touched {
            start,
            pages: count & !WRITTEN,
            written: count & WRITTEN != 0,
        };
        // A page may be listed twice: read first and written later.
        sum += u64::from(run.pages);
        let end = u64::from(run.start) + u64::from(run.pages);
        if run.pages == 0 || end > pages || sum > 2 * pages {
            return Err(WorkingSetError::Damaged);
        }
        runs.push(run);
    }
    Ok(runs)
}

/// Reads the working set file `path`. Returns `None` if it does not exist.
///
/// # Errors
/// [`WorkingSetError`].
pub fn read(path: &Path, id: &str, pages: u64) -> Result<Option<Vec<Touched>>, WorkingSetError> {
    let file = File::options()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    let file = match file {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(WorkingSetError::Read(e)),
    };
    let regular = file.metadata().is_ok_and(|metadata| metadata.is_file());
    if !regular {
        return Err(WorkingSetError::Magic);
    }
    let most = HEADER + MAX_RUNS * ENTRY + TRAILER;
    let mut bytes = Vec::new();
    // A longer file is truncated here, and then found to be damaged.
    let read = file.take(most as u64).read_to_end(&mut bytes);
    read.map_err(WorkingSetError::Read)?;
    decode(&bytes, id, pages).map(Some)
}

#[cfg(test)]
#[path = "working_set_test.rs"]
mod working_set_test;
