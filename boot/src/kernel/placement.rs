//! Brings parts of a file into guest memory: mapped if the monitor's mapper wants, else copied.
//!
//! The kernel and the initrd use it, after they checked the destination. linux-loader's own loaders can only copy whole
//! files, and check neither overlaps nor the file's length. A copy is one read(2) per segment straight into guest memory.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};

use vm_memory::{Bytes, GuestAddress};

use crate::layout::PAGE_SIZE;
use crate::memory_map::GuestMemory;

/// Complete pages of a file that may be mapped into guest memory instead of being copied.
#[derive(Debug, Clone, Copy)]
pub struct FilePiece<'a> {
    /// The file.
    pub file: &'a File,
    /// First byte in the file, page-aligned.
    pub file_offset: u64,
    /// Page-aligned address in guest RAM.
    pub guest_addr: u64,
    /// Length in bytes: complete pages within the file.
    pub len: u64,
}

/// Maps a piece of a file (`MAP_PRIVATE`) over guest memory. Returns false if it did not, and then it must have left the
/// memory unchanged.
pub type Mapper<'m> = dyn FnMut(&FilePiece<'_>) -> bool + 'm;

/// A range of a file with its address in guest memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileSegment {
    pub(crate) guest_addr: u64,
    pub(crate) file_offset: u64,
    pub(crate) len: u64,
}

impl FileSegment {
    /// Returns the complete pages inside the segment, if page boundaries in file and memory agree.
    fn whole_pages(&self) -> Option<Self> {
        let head = self.guest_addr.next_multiple_of(PAGE_SIZE) - self.guest_addr;
        let len = self.len.checked_sub(head)? & !(PAGE_SIZE - 1);
        let file_offset = self.file_offset + head;
        (len > 0 && file_offset.is_multiple_of(PAGE_SIZE)).then_some(Self {
            guest_addr: self.guest_addr + head,
            file_offset,
            len,
        })
    }

    /// Brings the segment into guest memory.
    pub(crate) fn place(
        &self,
        mem: &GuestMemory,
        file: &File,
        mapper: &mut Mapper<'_>,
    ) -> io::Result<()> {
        if let Some(pages) = self.whole_pages() {
            let FileSegment {
                guest_addr,
                file_offset,
                len,
            } = pages;
            if mapper(&FilePiece {
                file,
                file_offset,
                guest_addr,
                len,
            }) {
                let head = guest_addr - self.guest_addr;
                let tail = self.len - head - len;
                Self { len: head, ..*self }.copy(mem, file)?;
                return Self {
                    guest_addr: guest_addr + len,
                    file_offset: file_offset + len,
                    len: tail,
                }
                .copy(mem, file);
            }
        }
        self.copy(mem, file)
    }

    fn copy(&self, mem: &GuestMemory, mut file: &File) -> io::Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        let len = usize::try_from(self.len).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(self.file_offset))?;
        mem.read_exact_volatile_from(GuestAddress(self.guest_addr), &mut file, len)
            .map_err(io::Error::other)
    }
}

#[cfg(test)]
#[path = "placement_test.rs"]
mod tests;
