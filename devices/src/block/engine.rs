//! How a disk reaches its storage.

use super::backing::Backing;
use crate::GuestMemory;
use crate::virtio::buffers::Parts;
use nix::fcntl::{FallocateFlags, fallocate};
use std::io;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

/// Executes checked operations on the storage of a disk. Offsets are bytes, and within the disk.
pub trait DiskEngine: Send {
    /// Disk to guest.
    ///
    /// # Errors
    /// What the host says, or that the buffers are not in guest memory.
    fn read(&mut self, mem: &GuestMemory, to: &Parts, offset: u64) -> io::Result<()>;
    /// Guest to disk.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn write(&mut self, mem: &GuestMemory, from: &Parts, offset: u64) -> io::Result<()>;
    /// Makes all completed writes durable.
    ///
    /// # Errors
    /// What the host says.
    fn flush(&mut self) -> io::Result<()>;
    /// Gives the space of `bytes` back to the host; they read as zeroes.
    ///
    /// # Errors
    /// What the host says; `Unsupported` if the file system cannot.
    fn discard(&mut self, bytes: Range<u64>) -> io::Result<()>;
    /// Makes `bytes` read as zeroes; with `unmap` their space may go.
    ///
    /// # Errors
    /// What the host says.
    fn write_zeroes(&mut self, bytes: Range<u64>, unmap: bool) -> io::Result<()>;
}

/// Performs each operation at once, blocking the loop it runs on.
pub struct SyncEngine {
    backing: Backing,
}

/// Bytes of zeroes written at a time where the file system has no quicker way.
const ZEROES: usize = 64 << 10;

impl SyncEngine {
    /// Works on `backing`.
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
        // The size of the image never changes, so its data is all there is to it.
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
            // EINVAL: a block device of larger sectors than ours.
            Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                self.write_plain_zeroes(bytes)
            }
            done => done,
        }
    }
}
