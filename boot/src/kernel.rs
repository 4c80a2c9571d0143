//! The kernel file: what it is, judged by its content, and where its parts go.
//!
//! Called by [`crate::load_with`]. `elf` and `bzimage` read their formats; this file chooses between them, checks
//! what both have in common and names what else a file might be.
//!
//! Which protocol: a bzImage is entered at its 64-bit entry point. A vmlinux is entered through PVH when it has the
//! note, else at its ELF entry in long mode. The note is an explicit promise with a specification, the same for
//! Linux, FreeBSD and unikernels, whereas "e_entry is physical and wants a zero page" is only a habit of Linux;
//! neither costs an exit.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use linux_loader::bootparam::setup_header;
use thiserror::Error;
use vm_memory::ByteValued;

use crate::placement::{FileSegment, Mapper};
use crate::x86_64::Protocol;
use crate::{GuestMemory, bzimage, elf, layout, regular_file_len};

/// Why a kernel file cannot be booted.
#[derive(Debug, Error)]
pub enum KernelError {
    /// The file has no bytes.
    #[error("the file is empty: pass an uncompressed ELF vmlinux or a bzImage")]
    Empty,
    /// The file is something else.
    #[error("not a Linux kernel: {0}; pass an uncompressed ELF vmlinux or a bzImage")]
    Unrecognised(&'static str),
    /// The file ends too early.
    #[error(
        "the file is truncated: {what} ends at byte {needs}, the file at byte {has}; copy or build it again"
    )]
    Truncated {
        /// The part that is not all there.
        what: &'static str,
        /// Where that part ends.
        needs: u64,
        /// Bytes in the file.
        has: u64,
    },
    /// A kernel, but none this machine can start.
    #[error("unsupported kernel: {0}")]
    Unsupported(&'static str),
    /// The headers contradict themselves.
    #[error("malformed kernel: {0}; build or fetch it again")]
    Malformed(&'static str),
    /// Part of the kernel would lie where the boot structures are.
    #[error(
        "the kernel wants memory at {start:#x}, below 1 MiB, where the boot structures are: link it higher"
    )]
    LowMemory {
        /// First address asked for.
        start: u64,
    },
    /// The kernel does not fit in RAM.
    #[error(
        "the kernel needs memory from {start:#x} to {end:#x}, but low RAM ends at {ram_end:#x}: \
         give the guest at least {} MiB, or take a smaller kernel", end.div_ceil(1 << 20)
    )]
    OutsideMemory {
        /// First address asked for.
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

/// A checked kernel file: what to place where, and how to enter it.
#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) protocol: Protocol,
    /// First instruction, guest-physical.
    pub(crate) entry: u64,
    /// File contents and their places, disjoint, in RAM above 1 MiB.
    pub(crate) segments: Vec<FileSegment>,
    /// First byte after everything the kernel occupies before it knows its memory map.
    pub(crate) end: u64,
    /// Bytes of command line it takes, including the NUL.
    pub(crate) cmdline_capacity: usize,
    /// Last address an initrd may occupy.
    pub(crate) initrd_addr_max: u64,
    /// The setup header to hand back in the zero page.
    pub(crate) setup_header: setup_header,
}

impl Kernel {
    /// Reads the headers of `file` and checks them against `low_ram` bytes of RAM from address 0. Nothing is placed.
    pub(crate) fn inspect(file: &File, low_ram: u64) -> Result<Self, KernelError> {
        let len = regular_file_len(file)?;
        if len == 0 {
            return Err(KernelError::Empty);
        }
        let mut head = [0u8; HEAD_LEN];
        let head_len = usize::try_from(len).unwrap_or(HEAD_LEN).min(HEAD_LEN);
        let head = head.get_mut(..head_len).unwrap_or_default();
        file.read_exact_at(head, 0)?;
        let image = Image { file, len, low_ram };
        if head.starts_with(elf::MAGIC) {
            elf::inspect(&image)
        } else if head
            .get(bzimage::MAGIC_OFFSET..)
            .is_some_and(|rest| rest.starts_with(bzimage::MAGIC))
        {
            bzimage::inspect(&image)
        } else {
            Err(KernelError::Unrecognised(describe(head)))
        }
    }

    /// Where an initrd may lie: from, up to (exclusive).
    pub(crate) fn initrd_range(&self, low_ram: u64) -> (u64, u64) {
        (
            self.end,
            low_ram.min(self.initrd_addr_max.saturating_add(1)),
        )
    }

    /// Brings the kernel into guest memory.
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

/// Enough of a file to tell what it is.
const HEAD_LEN: usize = 0x400;

/// A kernel file being inspected, with the limits it is checked against.
pub(crate) struct Image<'a> {
    file: &'a File,
    pub(crate) len: u64,
    low_ram: u64,
}

impl Image<'_> {
    /// Checks that `[offset, offset + len)` is in the file, and returns its end.
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

    /// The end of `[start, start + len)`, after checking that it stays clear of the boot structures.
    pub(crate) fn extent_end(&self, start: u64, len: u64) -> Result<u64, KernelError> {
        if start < layout::HIGH_RAM_START {
            return Err(KernelError::LowMemory { start });
        }
        start
            .checked_add(len)
            .ok_or(KernelError::Malformed("an address is beyond 64 bits"))
    }

    /// Checks that everything the kernel needs, from `start` to `end`, is RAM.
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

/// Magic numbers at the start of files that people pass by mistake.
const LOOKALIKES: &[(&[u8], &str)] = &[
    (
        b"\x1f\x8b",
        "it is gzip-compressed, so decompress it first (gzip -dc)",
    ),
    (
        b"\xfd7zXZ\0",
        "it is xz-compressed, so decompress it first (xz -dc)",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "it is zstd-compressed, so decompress it first (zstd -dc)",
    ),
    (
        b"\x02\x21\x4c\x18",
        "it is lz4-compressed, so decompress it first (lz4 -dc)",
    ),
    (
        b"BZh",
        "it is bzip2-compressed, so decompress it first (bzip2 -dc)",
    ),
    (
        b"070701",
        "it is a cpio archive, as an initrd is (are kernel and initrd swapped?)",
    ),
    (b"QFI\xfb", "it is a qcow2 disk image"),
    (b"!<arch>", "it is an archive, such as a Debian package"),
    (b"MZ", "it is an EFI program without a Linux setup header"),
    (b"#!", "it is a script"),
];

/// An arm64 or RISC-V `Image` has "ARM\x64" or "RSC\x05" at this offset.
const FOREIGN_IMAGE_MAGIC: usize = 0x38;

fn describe(head: &[u8]) -> &'static str {
    if let Some((_, what)) = LOOKALIKES.iter().find(|(magic, _)| head.starts_with(magic)) {
        return what;
    }
    let foreign = head.get(FOREIGN_IMAGE_MAGIC..).unwrap_or_default();
    if foreign.starts_with(b"ARM\x64") || foreign.starts_with(b"RSC\x05") {
        "it is an Image for another architecture"
    } else if head
        .iter()
        .all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
    {
        "it is a text file"
    } else {
        "neither an ELF file nor a bzImage"
    }
}

#[cfg(test)]
#[path = "kernel_test.rs"]
mod tests;
