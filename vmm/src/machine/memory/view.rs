//! A view of guest memory in the layout of a memory file: the regions one after the other, read in place.

use super::page::{PAGE, PAGE_BYTES};
use devices::GuestMemory;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};

/// A page of zeroes.
const ZEROES: [u8; PAGE_BYTES] = [0; PAGE_BYTES];

/// A range of guest memory.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    /// Offset in a memory file.
    pub offset: u64,
    /// Address in this process.
    host: usize,
    /// Length in bytes, a multiple of the page size.
    pub len: u64,
}

/// A view of the memory of a paused guest: no vCPU and no device writes to it. The memory lives as long as the view.
#[derive(Clone)]
pub struct View {
    memory: GuestMemory,
    parts: Vec<Piece>,
}

impl View {
    /// Creates a view of `memory`.
    pub fn new(memory: &GuestMemory) -> Self {
        let mut offset = 0;
        let parts = memory.iter().map(|region| {
            let part = Piece {
                offset,
                host: region.as_ptr() as usize,
                len: region.len(),
            };
            offset += part.len;
            part
        });
        Self {
            parts: parts.collect(),
            memory: memory.clone(),
        }
    }

    /// Returns the memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Returns the size of the memory in bytes.
    pub fn bytes(&self) -> u64 {
        self.parts.iter().map(|part| part.len).sum()
    }

    /// Returns the regions, cut into pieces of at most `len` bytes.
    pub fn pieces(&self, len: u64) -> Vec<Piece> {
        self.parts.iter().flat_map(|part| part.cuts(len)).collect()
    }

    /// Returns `pages` pages from the page `first` on, as far as they exist, in one piece for each region.
    pub fn range(&self, first: u64, pages: u64) -> Vec<Piece> {
        let (start, end) = (
            first.saturating_mul(PAGE),
            first.saturating_add(pages).saturating_mul(PAGE),
        );
        let within = |part: &Piece| {
            let from = start.max(part.offset);
            let to = end.min(part.offset + part.len);
            let len = to.checked_sub(from).filter(|len| *len > 0)?;
            part.cut(from - part.offset, len)
        };
        self.parts.iter().filter_map(within).collect()
    }

    /// Returns the page `index` of a memory file.
    pub fn page(&self, index: u64) -> Option<Piece> {
        let offset = index.checked_mul(PAGE)?;
        let mut parts = self.parts.iter();
        let part = parts.find(|part| (part.offset..part.offset + part.len).contains(&offset))?;
        part.cut(offset - part.offset, PAGE)
    }
}

impl Piece {
    /// Returns `len` bytes from `start` on, if the piece has them.
    pub fn cut(&self, start: u64, len: u64) -> Option<Self> {
        let fits = start.checked_add(len)? <= self.len;
        fits.then_some(Self {
            offset: self.offset + start,
            host: self.host.checked_add(usize::try_from(start).ok()?)?,
            len,
        })
    }

    /// Returns the piece cut into pieces of at most `len` bytes.
    pub fn cuts(self, len: u64) -> impl Iterator<Item = Self> {
        let step = usize::try_from(len.max(PAGE)).unwrap_or(usize::MAX);
        let starts = (0..self.len).step_by(step);
        starts.filter_map(move |start| self.cut(start, len.min(self.len - start)))
    }

    /// Returns the piece's address in this process.
    pub fn address(&self) -> u64 {
        self.host as u64
    }

    /// Passes `advice` to the kernel. Only advice that does not change content is accepted.
    ///
    /// # Errors
    /// The kernel refused the advice.
    #[expect(unsafe_code, reason = "madvise is an unsafe function")]
    pub fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        const HARMLESS: [libc::c_int; 3] = [
            libc::MADV_WILLNEED,
            libc::MADV_POPULATE_READ,
            libc::MADV_POPULATE_WRITE,
        ];
        if !HARMLESS.contains(&advice) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let len = usize::try_from(self.len).unwrap_or_default();
        // SAFETY: the range is mapped, and none of these values changes its content.
        match unsafe { libc::madvise(self.host as *mut _, len, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns the pages of the piece.
    pub fn pages(self) -> impl Iterator<Item = Self> {
        (0..self.len / PAGE).filter_map(move |page| self.cut(page * PAGE, PAGE))
    }

    #[expect(unsafe_code, reason = "guest memory as bytes")]
    fn bytes(&self) -> &[u8] {
        let len = usize::try_from(self.len).unwrap_or_default();
        // SAFETY: the piece was cut from a mapping that lives as long as the view's memory. Nobody writes to it while the
        // guest is paused, and the reference does not leave this file.
        unsafe { std::slice::from_raw_parts(self.host as *const u8, len) }
    }

    /// Returns whether the piece holds only zeroes.
    pub fn is_zero(&self) -> bool {
        self.bytes().chunks(ZEROES.len()).all(|page| page == ZEROES)
    }

    /// Returns the CRC-32 of the piece.
    pub fn crc(&self) -> u32 {
        crc32fast::hash(self.bytes())
    }

    /// Writes the piece to its offset in `file`.
    ///
    /// # Errors
    /// The file cannot be written, for example because the disk is full.
    pub fn write_to(&self, file: &File) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(file, self.bytes(), self.offset)
    }

    /// Writes the piece to its offset in `file` while the guest may be writing to it: the file may receive a mix of old and new
    /// bytes.
    ///
    /// # Errors
    /// The file cannot be written.
    #[expect(unsafe_code, reason = "pwrite from memory that changes")]
    pub fn copy_to(&self, file: &File) -> io::Result<()> {
        let (mut at, mut left) = (self.host, usize::try_from(self.len).unwrap_or_default());
        let mut offset = libc::off_t::try_from(self.offset).map_err(io::Error::other)?;
        while left > 0 {
            // SAFETY: the kernel reads from a mapping that lives as long as the view's memory. No Rust reference points into it.
            let done = unsafe { libc::pwrite(file.as_raw_fd(), at as *const _, left, offset) };
            match usize::try_from(done) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(done) => {
                    at += done;
                    left -= done;
                    offset += libc::off_t::try_from(done).map_err(io::Error::other)?;
                }
                Err(_) => match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::Interrupted => {}
                    e => return Err(e),
                },
            }
        }
        Ok(())
    }

    /// Returns whether `file` holds the same bytes at the piece's offset.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn equals(&self, file: &File, buffer: &mut Vec<u8>) -> io::Result<bool> {
        buffer.resize(self.bytes().len(), 0);
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, self.offset)?;
        Ok(buffer.as_slice() == self.bytes())
    }

    /// Returns for each page whether it is in the host's memory. Other pages were never touched, are in a file, or are swapped
    /// out.
    ///
    /// # Errors
    /// The kernel refused the query.
    #[expect(unsafe_code, reason = "mincore is an unsafe function")]
    pub fn resident(&self) -> io::Result<Vec<bool>> {
        let len = usize::try_from(self.len).unwrap_or_default();
        let mut pages = vec![0_u8; len.div_ceil(ZEROES.len())];
        // SAFETY: the kernel writes one byte for each page of the range, which is mapped.
        let result = unsafe { libc::mincore(self.host as *mut _, len, pages.as_mut_ptr()) };
        match result {
            0 => Ok(pages.into_iter().map(|page| page & 1 != 0).collect()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

#[cfg(test)]
#[path = "view_test.rs"]
pub(crate) mod view_test;
