//! Copies of images. Blocks are shared where the file system can do that, holes stay holes, and a signal stops a copy.

use crate::error::Error;
use crate::sys::progress::Progress;
use crate::undo::Undo;
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, copy_file_range, fallocate};
use nix::unistd::{Whence, lseek};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes that are copied or zeroed between two checks for a signal.
const CHUNK: u64 = 64 << 20;

/// Smallest run of zeros, in bytes, that becomes a hole when bytes are copied by this process: the largest usual block
/// size of file systems.
const BLOCK: usize = 64 << 10;

/// The former contents of a copy's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Nothing: a file that is one hole.
    Empty,
    /// Unknown data: a device.
    Device,
}

/// An image to copy from.
#[derive(Debug)]
pub struct Source {
    /// Its file or device, open for reading.
    pub file: File,
    /// Its path, for messages.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size: u64,
}

impl Source {
    /// Opens `path`.
    pub fn open(path: &Path) -> Result<Self, String> {
        // A FIFO in its place must not block the start.
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(libc::O_NONBLOCK);
        let opened = options.open(path);
        let opened = opened.map_err(|e| format!("cannot open {}: {e}", path.display()))?;
        Self::new(opened, path)
    }

    /// Returns the source `file`, which was opened as `path`.
    pub fn new(mut file: File, path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let failed = |e: io::Error| format!("cannot open {shown}: {e}");
        let kind = file.metadata().map_err(failed)?.file_type();
        if !kind.is_file() && !kind.is_block_device() {
            return Err(format!("{shown} is neither a file nor a block device"));
        }
        // A block device has no length in its metadata.
        let size = file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self {
            file,
            path: path.into(),
            size,
        })
    }

    /// Fills `to`, an empty file: shares blocks where the file system can do that, else copies everything but holes.
    /// The outer error is that a signal is pending.
    pub fn copy_to(&self, to: &File, undo: &mut Undo) -> Result<io::Result<()>, Error> {
        if share(&self.file, to) {
            return Ok(Ok(()));
        }
        self.copy(to, Target::Empty, undo)
    }

    /// Fills `to`, a device of `size` bytes with unknown contents. The outer error is that a signal is pending.
    pub fn copy_to_device(
        &self,
        to: &File,
        size: u64,
        undo: &mut Undo,
    ) -> Result<io::Result<()>, Error> {
        if let Err(e) = self.copy(to, Target::Device, undo)? {
            return Ok(Err(e));
        }
        zero(to, self.size, size, undo)
    }

    fn copy(&self, to: &File, target: Target, undo: &mut Undo) -> Result<io::Result<()>, Error> {
        let name = self.path.file_name().unwrap_or_default().display();
        let mut progress = Progress::new(format!("copy {name}"), self.size);
        let mut at = 0;
        while at < self.size {
            undo.checkpoint()?;
            match self.next_extent(at).and_then(|(start, end)| {
                if target == Target::Device {
                    zero_range(to, at, start)?;
                }
                copy_range(&self.file, to, start, end, target)?;
                Ok(end)
            }) {
                Ok(end) => at = end,
                Err(e) => return Ok(Err(e)),
            }
            progress.reached(at);
        }
        Ok(Ok(()))
    }

    /// Returns start and end of the next data at or after `at`, at most [`CHUNK`] bytes; an empty range at the image's
    /// end if there is none.
    fn next_extent(&self, at: u64) -> io::Result<(u64, u64)> {
        let chunk = |start: u64, end: u64| (start, end.min(start.saturating_add(CHUNK)));
        let offset = i64::try_from(at).map_err(io::Error::other)?;
        let start = match lseek(&self.file, offset, Whence::SeekData) {
            Ok(start) => u64::try_from(start).map_err(io::Error::other)?,
            Err(Errno::ENXIO) => return Ok((self.size, self.size)),
            // A block device has no holes.
            Err(Errno::EINVAL) => return Ok(chunk(at, self.size)),
            Err(e) => return Err(e.into()),
        };
        let hole = lseek(
            &self.file,
            i64::try_from(start).map_err(io::Error::other)?,
            Whence::SeekHole,
        )?;
        let end = u64::try_from(hole).map_err(io::Error::other)?;
        Ok(chunk(start, end.min(self.size)))
    }
}

/// Makes `to` share all blocks of `from`; returns `false` if the file system cannot do that.
#[expect(unsafe_code, reason = "FICLONE is an ioctl")]
pub fn share(from: &File, to: &File) -> bool {
    // SAFETY: the argument is a descriptor.
    unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) == 0 }
}

/// Zeroes the bytes of a device from `start` to `end`, so that no guest reads what another left there. The outer error
/// is that a signal is pending.
pub fn zero(to: &File, start: u64, end: u64, undo: &mut Undo) -> Result<io::Result<()>, Error> {
    let total = end.saturating_sub(start);
    let mut progress = Progress::new("zero the new volume", total);
    let mut at = start;
    while at < end {
        undo.checkpoint()?;
        let next = end.min(at.saturating_add(CHUNK));
        if let Err(e) = zero_range(to, at, next) {
            return Ok(Err(e));
        }
        at = next;
        progress.reached(at - start);
    }
    Ok(Ok(()))
}

/// Zeroes by a command of the device, which may free the space, or else by writing.
fn zero_range(to: &File, start: u64, end: u64) -> io::Result<()> {
    if start >= end {
        return Ok(());
    }
    let signed = |n: u64| i64::try_from(n).map_err(io::Error::other);
    let (offset, len) = (signed(start)?, signed(end - start)?);
    let punch = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    if fallocate(to, punch, offset, len).is_ok()
        || fallocate(to, FallocateFlags::FALLOC_FL_ZERO_RANGE, offset, len).is_ok()
    {
        return Ok(());
    }
    let zeroes = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(usize::MAX);
        let part = zeroes.get(..zeroes.len().min(len)).unwrap_or_default();
        to.write_all_at(part, at)?;
        at += part.len() as u64;
    }
    Ok(())
}

/// Copies the bytes from `start` to `end` to the same place.
fn copy_range(from: &File, to: &File, start: u64, end: u64, kind: Target) -> io::Result<()> {
    let signed = |n: u64| i64::try_from(n).map_err(io::Error::other);
    let (mut source, mut target) = (signed(start)?, signed(start)?);
    while source < signed(end)? {
        let left = usize::try_from(signed(end)? - source).map_err(io::Error::other)?;
        match copy_file_range(from, Some(&mut source), to, Some(&mut target), left) {
            Ok(0) => return Err(io::Error::other("the template has become shorter")),
            Ok(_) => {}
            // Between file systems, or from a device, this process copies the bytes.
            Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                let at = u64::try_from(source).map_err(io::Error::other)?;
                return copy_bytes(from, to, at, end, kind);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

/// Copies bytes. Zeros are not written to an empty file: not every file system reports its holes, and without them an
/// image may be ten times as large.
fn copy_bytes(from: &File, to: &File, start: u64, end: u64, target: Target) -> io::Result<()> {
    let zeros = vec![0; BLOCK];
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let part = buffer.get_mut(..len).unwrap_or_default();
        from.read_exact_at(part, at)?;
        match target {
            Target::Device => to.write_all_at(part, at)?,
            Target::Empty => {
                for (block, place) in part.chunks(BLOCK).zip((at..).step_by(BLOCK)) {
                    if Some(block) != zeros.get(..block.len()) {
                        to.write_all_at(block, place)?;
                    }
                }
            }
        }
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
#[path = "copy_test.rs"]
mod copy_test;
