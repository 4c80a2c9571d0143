//! The buffers of a descriptor chain: guest addresses, read from the ring once, and copies to and from them.
//!
//! A driver may split a message into descriptors as it likes (Virtio 1.2, 2.7.4.2), so devices see byte streams:
//! [`Parts`] that can be split anywhere. No Rust slice over guest memory is ever made. Bytes are copied, or the kernel
//! reads and writes them through [`Parts::read_at`], [`Parts::write_at`] and [`Parts::send`].

use crate::GuestMemory;
use crate::virtio::queue::Chain;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use vm_memory::bitmap::{Bitmap as _, MS};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, GuestMemoryError, Permissions};

/// A contiguous range of guest memory for the kernel to access. After the kernel wrote to it, call [`mark`].
pub type GuestSlice<'m> = vm_memory::VolatileSlice<'m, MS<'m, GuestMemory>>;

/// Marks `slices` dirty after the kernel wrote to them. Call it after the write: a snapshot that clears the bitmap in
/// between would miss the data otherwise.
pub fn mark(slices: &[GuestSlice<'_>]) {
    for slice in slices {
        slice.bitmap().mark_dirty(0, slice.len());
    }
}

/// Largest number of descriptors of a chain that is accepted: the limit of one system call (IOV_MAX). Linux's drivers
/// use fewer than 256.
const MAX_PARTS: usize = 1024;

/// The reason why a chain cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokenChain {
    /// A device-readable descriptor follows a device-writable one (section 2.7.4.2).
    #[error("a readable buffer follows a writable one")]
    Order,
    /// More than 1024 descriptors.
    #[error("the chain has too many buffers")]
    TooManyParts,
    /// The chain ends although its last descriptor names a next one, or it has no descriptor. Causes are a loop, an index
    /// beyond the table, an indirect table that is nested or outside guest memory, and more than 2^32 bytes.
    #[error("the chain is cut short")]
    Cut,
}

/// A byte stream in guest memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parts {
    parts: Vec<(GuestAddress, usize)>,
    len: usize,
}

/// The device-readable and device-writable streams of a chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChainBuffers {
    /// Driver to device.
    pub readable: Parts,
    /// Device to driver.
    pub writable: Parts,
}

impl ChainBuffers {
    /// Reads the descriptors of `chain`.
    ///
    /// # Errors
    /// [`BrokenChain`]: nothing of the chain can be trusted.
    pub fn collect(chain: Chain<'_>) -> Result<Self, BrokenChain> {
        let mut buffers = Self::default();
        // The iterator reports an end and a malformed chain alike; only the NEXT flag tells them apart.
        let mut goes_on = true;
        // Empty buffers count, because an indirect table has room for 65535 of them.
        for (count, descriptor) in chain.enumerate() {
            if count == MAX_PARTS {
                return Err(BrokenChain::TooManyParts);
            }
            goes_on = descriptor.has_next();
            let stream = if descriptor.is_write_only() {
                &mut buffers.writable
            } else if buffers.writable.parts.is_empty() {
                &mut buffers.readable
            } else {
                return Err(BrokenChain::Order);
            };
            stream.push(descriptor.addr(), descriptor.len() as usize);
        }
        if goes_on {
            return Err(BrokenChain::Cut);
        }
        Ok(buffers)
    }
}

impl Parts {
    fn push(&mut self, address: GuestAddress, len: usize) {
        // An empty buffer carries nothing, and its address may be invalid.
        if len != 0 {
            self.parts.push((address, len));
            // The iterator ends a chain at 2^32 bytes.
            self.len += len;
        }
    }

    /// Returns the number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns guest address and length of each part.
    pub fn ranges(&self) -> impl Iterator<Item = (GuestAddress, usize)> {
        self.parts.iter().copied()
    }

    /// Splits the stream after the first `at` bytes. Returns `None` if it is shorter.
    pub fn split_at(self, at: usize) -> Option<(Self, Self)> {
        let mut left = at;
        let (mut front, mut back) = (Self::default(), Self::default());
        if at > self.len {
            return None;
        }
        for (address, len) in self.parts {
            let here = len.min(left);
            front.push(address, here);
            // An address that wraps around is outside guest memory, so the access fails.
            let rest = GuestAddress(address.0.wrapping_add(here as u64));
            back.push(rest, len - here);
            left -= here;
        }
        Some((front, back))
    }

    /// Copies the first `bytes.len()` bytes from the guest.
    ///
    /// # Errors
    /// The stream is shorter, or outside guest memory.
    pub fn read(&self, mem: &GuestMemory, bytes: &mut [u8]) -> Result<(), GuestMemoryError> {
        let mut rest = bytes;
        for (address, len) in &self.parts {
            if rest.is_empty() {
                break;
            }
            let (here, after) = rest.split_at_mut((*len).min(rest.len()));
            mem.read_slice(here, *address)?;
            rest = after;
        }
        all_done(rest.len())
    }

    /// Copies `bytes` to the guest.
    ///
    /// # Errors
    /// The stream is shorter, or outside guest memory.
    pub fn write(&self, mem: &GuestMemory, bytes: &[u8]) -> Result<(), GuestMemoryError> {
        let mut rest = bytes;
        for (address, len) in &self.parts {
            if rest.is_empty() {
                break;
            }
            let (here, after) = rest.split_at((*len).min(rest.len()));
            mem.write_slice(here, *address)?;
            rest = after;
        }
        all_done(rest.len())
    }

    /// Returns the stream as host memory ranges.
    ///
    /// # Errors
    /// Part of the stream is outside guest memory.
    pub fn slices<'m>(
        &self,
        mem: &'m GuestMemory,
        access: Permissions,
    ) -> Result<Vec<GuestSlice<'m>>, GuestMemoryError> {
        let mut slices = Vec::with_capacity(self.parts.len());
        for (address, len) in &self.parts {
            for slice in mem.get_slices(*address, *len, access)? {
                slices.push(slice?);
            }
        }
        Ok(slices)
    }

    /// Fills the whole stream from `file` at `offset`.
    ///
    /// # Errors
    /// The file is shorter, the stream is outside guest memory, or the read failed.
    pub fn read_at(&self, mem: &GuestMemory, file: BorrowedFd, offset: u64) -> io::Result<()> {
        let slices = self.guest_slices(mem, Permissions::Write)?;
        let done = transfer(&slices, offset, |vector, at| preadv(file, vector, at));
        // All slices: a failed read may have written some of them.
        mark(&slices);
        done
    }

    /// Writes the whole stream to `file` at `offset`.
    ///
    /// # Errors
    /// The stream is outside guest memory, or the write failed.
    pub fn write_at(&self, mem: &GuestMemory, file: BorrowedFd, offset: u64) -> io::Result<()> {
        let slices = self.guest_slices(mem, Permissions::Read)?;
        transfer(&slices, offset, |vector, at| pwritev(file, vector, at))
    }

    /// Sends the stream as one message.
    ///
    /// # Errors
    /// The stream is outside guest memory or has too many parts, or the write failed.
    pub fn send(&self, mem: &GuestMemory, file: BorrowedFd) -> io::Result<usize> {
        writev(file, &self.guest_slices(mem, Permissions::Read)?)
    }

    fn guest_slices<'m>(
        &self,
        mem: &'m GuestMemory,
        access: Permissions,
    ) -> io::Result<Vec<GuestSlice<'m>>> {
        self.slices(mem, access)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e))
    }
}

fn all_done(left: usize) -> Result<(), GuestMemoryError> {
    match left {
        0 => Ok(()),
        left => Err(GuestMemoryError::PartialBuffer {
            expected: left,
            completed: 0,
        }),
    }
}

/// Repeats `call` until all of `slices` are transferred.
fn transfer(
    slices: &[GuestSlice<'_>],
    mut offset: u64,
    call: impl Fn(&[GuestSlice<'_>], u64) -> io::Result<usize>,
) -> io::Result<()> {
    let mut rest = slices.to_vec();
    while !rest.is_empty() {
        let batch = rest.get(..rest.len().min(MAX_PARTS)).unwrap_or_default();
        let done = match call(batch, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(done) => done,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        offset += done as u64;
        advance(&mut rest, done)?;
    }
    Ok(())
}

/// Removes the first `done` bytes.
fn advance(slices: &mut Vec<GuestSlice<'_>>, mut done: usize) -> io::Result<()> {
    let mut whole = 0;
    for slice in slices.iter_mut() {
        if done < slice.len() {
            if done != 0 {
                *slice = slice.offset(done).map_err(io::Error::other)?;
            }
            break;
        }
        done -= slice.len();
        whole += 1;
    }
    slices.drain(..whole);
    Ok(())
}

/// The vector of a system call, with a borrow that keeps its addresses valid.
struct IoVectors<'a> {
    vectors: Vec<libc::iovec>,
    _memory: &'a [GuestSlice<'a>],
}

impl<'a> IoVectors<'a> {
    fn new(slices: &'a [GuestSlice<'a>]) -> io::Result<(Self, libc::c_int)> {
        let count = libc::c_int::try_from(slices.len()).map_err(io::Error::other)?;
        let vectors = slices.iter().map(|slice| libc::iovec {
            iov_base: slice.ptr_guard_mut().as_ptr().cast(),
            iov_len: slice.len(),
        });
        let vectors = Self {
            vectors: vectors.collect(),
            _memory: slices,
        };
        Ok((vectors, count))
    }
}

fn file_offset(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

fn result(returned: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(returned).map_err(|_| io::Error::last_os_error())
}

#[expect(unsafe_code, reason = "std has no vectored read into volatile memory")]
fn preadv(file: BorrowedFd, slices: &[GuestSlice<'_>], offset: u64) -> io::Result<usize> {
    let (vectors, count) = IoVectors::new(slices)?;
    let offset = file_offset(offset)?;
    // SAFETY: each vector is a volatile slice that lives until the call returns. Rust assumes nothing about the bytes of
    // such memory, so the kernel may change them.
    result(unsafe { libc::preadv(file.as_raw_fd(), vectors.vectors.as_ptr(), count, offset) })
}

#[expect(unsafe_code, reason = "std has no vectored write from volatile memory")]
fn pwritev(file: BorrowedFd, slices: &[GuestSlice<'_>], offset: u64) -> io::Result<usize> {
    let (vectors, count) = IoVectors::new(slices)?;
    let offset = file_offset(offset)?;
    // SAFETY: each vector is a volatile slice that lives until the call returns. The kernel only reads it.
    result(unsafe { libc::pwritev(file.as_raw_fd(), vectors.vectors.as_ptr(), count, offset) })
}

#[expect(unsafe_code, reason = "std has no vectored write from volatile memory")]
fn writev(file: BorrowedFd, slices: &[GuestSlice<'_>]) -> io::Result<usize> {
    let (vectors, count) = IoVectors::new(slices)?;
    // SAFETY: each vector is a volatile slice that lives until the call returns. The kernel only reads it.
    result(unsafe { libc::writev(file.as_raw_fd(), vectors.vectors.as_ptr(), count) })
}

#[cfg(test)]
#[path = "buffers_test.rs"]
mod buffers_test;
