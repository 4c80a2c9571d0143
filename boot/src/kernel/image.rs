//! A checked kernel: the parts to place, the entry point, and the checks that ELF and bzImage files share.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use linux_loader::bootparam::setup_header;
use thiserror::Error;
use vm_memory::ByteValued;

use crate::kernel::placement::{FileSegment, Mapper};
use crate::layout;
use crate::memory_map::GuestMemory;
use crate::x86_64::Protocol;

/// The reason why a kernel file cannot be booted.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The file has no bytes.
    #[error("the file is empty: pass an uncompressed ELF vmlinux or a bzImage")]
    Empty,
    /// The file is not a kernel.
    #[error("not a Linux kernel: {0}; pass an uncompressed ELF vmlinux or a bzImage")]
    Unrecognised(&'static str),
    /// The file ends too early.
    #[error(
        "the file is truncated: {what} ends at byte {needs}, the file at byte {has}; copy or build it again"
    )]
    Truncated {
        /// The incomplete part.
        what: &'static str,
        /// End of that part in the file.
        needs: u64,
        /// Size of the file in bytes.
        has: u64,
    },
    /// The file is a kernel that this machine cannot start.
    #[error("unsupported kernel: {0}")]
    Unsupported(&'static str),
    /// The headers are inconsistent.
    #[error("malformed kernel: {0}; build or fetch it again")]
    Malformed(&'static str),
    /// Part of the kernel would overlap the boot structures.
    #[error(
        "the kernel is linked at {start:#x}, below 1 MiB, where the boot structures are: link it higher"
    )]
    LowMemory {
        /// First address of the part.
        start: u64,
    },
    /// The kernel does not fit into RAM.
    #[error(
        "the kernel needs memory from {start:#x} to {end:#x}, but low RAM ends at {ram_end:#x}: \
         give the guest at least {} MiB, or take a smaller kernel", end.div_ceil(1 << 20)
    )]
    OutsideMemory {
        /// First address of the kernel.
        start: u64,
        /// First address after it.
        end: u64,
        /// End of RAM below the MMIO gap.
        ram_end: u64,
    },
    /// Reading the file failed.
    #[error("cannot read the file")]
    Io(#[from] io::Error),
}

/// A checked kernel: its entry point and the parts to place.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) protocol: Protocol,
    /// First instruction, guest-physical.
    pub(crate) entry: u64,
    /// Disjoint parts of the file with their addresses in RAM above 1 MiB.
    pub(crate) segments: Vec<FileSegment>,
    /// First byte after the memory that the kernel uses before it reads the memory map.
    pub(crate) end: u64,
    /// Largest command line in bytes with NUL.
    pub(crate) cmdline_capacity: usize,
    /// Last address that an initrd may occupy.
    pub(crate) initrd_addr_max: u64,
    /// The setup header for the zero page.
    pub(crate) setup_header: setup_header,
}

impl Kernel {
    /// Returns the range for an initrd: first address, and first address after it.
    pub(crate) fn initrd_range(&self, low_ram: u64) -> (u64, u64) {
        (
            self.end,
            low_ram.min(self.initrd_addr_max.saturating_add(1)),
        )
    }

    /// Copies or maps the kernel into guest memory.
    pub(crate) fn place(
        &self,
        mem: &GuestMemory,
        file: &File,
        mapper: &mut Mapper<'_>,
    ) -> Result<(), KernelError> {
        for segment in &self.segments {
            segment.place(mem, file, mapper)?;
        }
        Ok(())
    }
}

/// A kernel file being inspected, with the limits it is checked against.
pub(crate) struct Image<'a> {
    file: &'a File,
    pub(crate) len: u64,
    low_ram: u64,
}

impl<'a> Image<'a> {
    /// Creates an image of `len` bytes for a guest with `low_ram` bytes of RAM from address 0.
    pub(crate) fn new(file: &'a File, len: u64, low_ram: u64) -> Self {
        Self { file, len, low_ram }
    }
}

impl Image<'_> {
    /// Checks that `[offset, offset + len)` is within the file, and returns its end.
    pub(crate) fn check_in_file(
        &self,
        what: &'static str,
        offset: u64,
        len: u64,
    ) -> Result<u64, KernelError> {
        let end = offset
            .checked_add(len)
            .ok_or(KernelError::Malformed("an offset is beyond 64 bits"))?;
        if end > self.len {
            return Err(KernelError::Truncated {
                what,
                needs: end,
                has: self.len,
            });
        }
        Ok(end)
    }

    /// Returns the end of `[start, start + len)`. Checks that the range is above the boot structures.
    pub(crate) fn extent_end(&self, start: u64, len: u64) -> Result<u64, KernelError> {
        if start < layout::HIGH_RAM_START {
            return Err(KernelError::LowMemory { start });
        }
        start
            .checked_add(len)
            .ok_or(KernelError::Malformed("an address is beyond 64 bits"))
    }

    /// Checks that the range from `start` to `end` is RAM.
    pub(crate) fn check_in_memory(&self, start: u64, end: u64) -> Result<(), KernelError> {
        if end > self.low_ram {
            return Err(KernelError::OutsideMemory {
                start,
                end,
                ram_end: self.low_ram,
            });
        }
        Ok(())
    }

    /// Reads `buf.len()` bytes at `offset`.
    pub(crate) fn read(
        &self,
        what: &'static str,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), KernelError> {
        let len = u64::try_from(buf.len()).unwrap_or(u64::MAX);
        self.check_in_file(what, offset, len)?;
        Ok(self.file.read_exact_at(buf, offset)?)
    }

    /// Reads a plain structure at `offset`.
    pub(crate) fn read_struct<T: ByteValued + Default>(
        &self,
        what: &'static str,
        offset: u64,
    ) -> Result<T, KernelError> {
        let mut value = T::default();
        self.read(what, offset, value.as_mut_slice())?;
        Ok(value)
    }
}
