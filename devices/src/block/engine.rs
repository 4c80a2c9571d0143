//! Executes disk operations on a file or block device.

use super::backing::Backing;
use crate::GuestMemory;
use crate::virtio::buffers::Parts;
use nix::fcntl::{FallocateFlags, fallocate};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

/// Executes checked operations. Offsets are in bytes and within the disk.
pub trait DiskEngine: Send {
    /// Reads from the disk into guest memory.
    ///
    /// # Errors
    /// The read failed, or the buffers are outside guest memory.
    fn read(&mut self, mem: &GuestMemory, to: &Parts, offset: u64) -> io::Result<()>;
    /// Writes from guest memory to the disk.
    ///
    /// # Errors
    /// The write failed, or the buffers are outside guest memory.
    fn write(&mut self, mem: &GuestMemory, from: &Parts, offset: u64) -> io::Result<()>;
    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// The flush failed. Writes since the last flush may be lost.
    fn flush(&mut self) -> io::Result<()>;
    /// Deallocates `bytes`, which read as zeroes afterwards.
    ///
    /// # Errors
    /// The host failed; `Unsupported` if the file system cannot deallocate.
    fn discard(&mut self, bytes: Range<u64>) -> io::Result<()>;
    /// Writes zeroes to `bytes`. With `unmap` the space may be deallocated.
    ///
    /// # Errors
    /// The host failed.
    fn write_zeroes(&mut self, bytes: Range<u64>, unmap: bool) -> io::Result<()>;
}

/// Executes each operation before it returns, which blocks the loop.
pub struct SyncEngine {
    backing: Backing,
}

/// Bytes of zeroes per write on a file system that cannot zero a range.
const ZEROES: usize = 64 << 10;

impl SyncEngine {
    /// Creates an engine for `backing`.
    pub fn new(backing: Backing) -> Self {
        Self { backing }
    }

    fn allocate(&self, flags: FallocateFlags, bytes: &Range<u64>) -> io::Result<()> {
        let signed = |value| libc::off_t::try_from(value).map_err(io::Error::other);
        let (start, len) = (signed(bytes.start)?, signed(bytes.end - bytes.start)?);
        if len == 0 {
            return Ok(());
        }
        let flags = flags | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(self.backing.file(), flags, start, len)?)
    }

    fn write_plain_zeroes(&self, bytes: Range<u64>) -> io::Result<()> {
        let zeroes = [0; ZEROES];
        let mut at = bytes.start;
        while at < bytes.end {
            let len = usize::try_from(bytes.end - at).map_or(ZEROES, |left| left.min(ZEROES));
            self.backing
                .file()
                .write_all_at(zeroes.get(..len).unwrap_or_default(), at)?;
            at += len as u64;
        }
        Ok(())
    }
}

impl DiskEngine for SyncEngine {
    fn read(&mut self, mem: &GuestMemory, to: &Parts, offset: u64) -> io::Result<()> {
        to.read_at(mem, self.backing.file().as_fd(), offset)
    }

    fn write(&mut self, mem: &GuestMemory, from: &Parts, offset: u64) -> io::Result<()> {
        from.write_at(mem, self.backing.file().as_fd(), offset)
    }

    fn flush(&mut self) -> io::Result<()> {
        // The size of the image never changes, so its metadata need not be synced.
        self.backing.file().sync_data()
    }

    fn discard(&mut self, bytes: Range<u64>) -> io::Result<()> {
        self.allocate(FallocateFlags::FALLOC_FL_PUNCH_HOLE, &bytes)
    }

    fn write_zeroes(&mut self, bytes: Range<u64>, unmap: bool) -> io::Result<()> {
        let quick = match unmap {
            true => FallocateFlags::FALLOC_FL_PUNCH_HOLE,
            false => FallocateFlags::FALLOC_FL_ZERO_RANGE,
        };
        match self.allocate(quick, &bytes) {
            // EINVAL comes from a block device whose sectors are larger than 512 bytes.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                self.write_plain_zeroes(bytes)
            }
            done => done,
        }
    }
}
