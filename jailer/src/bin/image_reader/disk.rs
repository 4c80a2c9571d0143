//! The bytes of an image. Reads never go beyond a partition's end. The number of reads and bytes is limited, because a
//! hostile image may have structures that refer to each other in a circle.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::rc::Rc;

/// Most bytes that are read in total: the largest kernel and initrd, and the metadata that leads to them.
const MAX_BYTES: u64 = 4 << 30;
/// Most reads in total; an initrd of 1 GiB in blocks of 1 KiB takes a quarter of them.
const MAX_READS: u64 = 4 << 20;

/// A part of an image.
#[derive(Clone, Debug)]
pub struct Window {
    image: Rc<File>,
    left: Rc<Cell<(u64, u64)>>,
    start: u64,
    len: u64,
    position: u64,
}

impl Window {
    /// Returns all of `image`, which has `len` bytes.
    pub fn new(image: File, len: u64) -> Self {
        Self {
            image: Rc::new(image),
            left: Rc::new(Cell::new((MAX_BYTES, MAX_READS))),
            start: 0,
            len,
            position: 0,
        }
    }

    /// Returns the `len` bytes from `start`, as far as they exist. All parts share one limit.
    pub fn part(&self, start: u64, len: u64) -> Self {
        let start = start.min(self.len);
        Self {
            start: self.start.saturating_add(start),
            len: len.min(self.len - start),
            position: 0,
            ..self.clone()
        }
    }

    /// Returns its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Reads some bytes from `at`; none at the end.
    ///
    /// # Errors
    /// An error of the host, or that the limit is reached.
    pub fn read_some(&self, at: u64, to: &mut [u8]) -> io::Result<usize> {
        let there = usize::try_from(self.len.saturating_sub(at)).unwrap_or(usize::MAX);
        let wanted = there.min(to.len());
        let (bytes, reads) = self.left.get();
        let left = bytes.checked_sub(wanted as u64).zip(reads.checked_sub(1));
        let Some(left) = left else {
            let message = "it refers to itself in a circle, or more than 4 GiB must be read";
            return Err(io::Error::other(message));
        };
        self.left.set(left);
        let to = to.get_mut(..wanted).unwrap_or_default();
        self.image.read_at(to, self.start.saturating_add(at))
    }

    /// Fills `to` from `at`.
    ///
    /// # Errors
    /// As [`Self::read_some`], or `UnexpectedEof`.
    pub fn read_exact_at(&self, at: u64, mut to: &mut [u8]) -> io::Result<()> {
        let mut at = at;
        while !to.is_empty() {
            let read = self.read_some(at, to)?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            at = at.saturating_add(read as u64);
            to = to.get_mut(read..).unwrap_or_default();
        }
        Ok(())
    }

    /// Returns the `N` bytes from `at`.
    ///
    /// # Errors
    /// As [`Self::read_exact_at`].
    pub fn bytes<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.read_exact_at(at, &mut bytes)?;
        Ok(bytes)
    }
}

impl ext4_view::Ext4Read for Window {
    fn read(
        &mut self,
        start: u64,
        to: &mut [u8],
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        Ok(self.read_exact_at(start, to)?)
    }
}

impl Read for Window {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.read_some(self.position, to)?;
        self.position = self.position.saturating_add(read as u64);
        Ok(read)
    }
}

impl Seek for Window {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(offset) => self.len.checked_add_signed(offset),
            SeekFrom::Current(offset) => self.position.checked_add_signed(offset),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

/// The crate `fatfs` requires this; every write fails.
impl Write for Window {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
