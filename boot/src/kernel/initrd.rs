//! The initial RAM disk. It is placed as high in low RAM as the kernel allows, so that the kernel has room to unpack.
//!
//! [`crate::load_with`] calls it. The content is not inspected.

use std::fs::File;
use std::io;

use thiserror::Error;

use crate::kernel::file::regular_file_len;
use crate::kernel::placement::{FileSegment, Mapper};
use crate::layout::PAGE_SIZE;
use crate::memory_map::GuestMemory;

/// The reason why an initrd cannot be loaded.
#[derive(Debug, Error)]
pub enum InitrdError {
    /// The file has no bytes.
    #[error("the file is empty: build it again, or leave the initrd out")]
    Empty,
    /// There is no room between the kernel and the end of usable RAM.
    #[error(
        "it has {len} bytes, but only {room} are free between the kernel and the end of usable RAM: \
         give the guest more memory, or make the initrd smaller"
    )]
    DoesNotFit {
        /// Bytes of the initrd.
        len: u64,
        /// Free bytes.
        room: u64,
    },
    /// Reading the file failed.
    #[error("cannot read the file")]
    Io(#[from] io::Error),
}

/// A checked initrd with its address.
#[derive(Debug)]
pub(crate) struct Initrd {
    /// Guest-physical address, page-aligned.
    pub(crate) addr: u64,
    /// Bytes.
    pub(crate) len: u64,
}

impl Initrd {
    /// Chooses an address for `file` in `[from, to)`. Nothing is written.
    pub(crate) fn inspect(file: &File, (from, to): (u64, u64)) -> Result<Self, InitrdError> {
        let len = regular_file_len(file)?;
        if len == 0 {
            return Err(InitrdError::Empty);
        }
        let does_not_fit = InitrdError::DoesNotFit {
            len,
            room: to.saturating_sub(from),
        };
        match to.checked_sub(len).map(|start| start & !(PAGE_SIZE - 1)) {
            Some(addr) if addr >= from => Ok(Self { addr, len }),
            _ => Err(does_not_fit),
        }
    }

    /// Copies or maps the initrd into guest memory.
    pub(crate) fn place(
        &self,
        mem: &GuestMemory,
        file: &File,
        mapper: &mut Mapper<'_>,
    ) -> Result<(), InitrdError> {
        Ok(FileSegment {
            guest_addr: self.addr,
            file_offset: 0,
            len: self.len,
        }
        .place(mem, file, mapper)?)
    }
}

#[cfg(test)]
#[path = "initrd_test.rs"]
mod tests;
