//! Recognises the format of a kernel file by its content.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::kernel::file::regular_file_len;
use crate::kernel::image::{Image, Kernel, KernelError};
use crate::kernel::{bzimage, elf};

/// Bytes of a file that identify its format.
const HEAD_LEN: usize = 0x400;

/// Reads the headers of `file` and checks them against `low_ram` bytes of RAM from address 0. Nothing is placed.
pub(crate) fn inspect(file: &File, low_ram: u64) -> Result<Kernel, KernelError> {
    let len = regular_file_len(file)?;
    if len == 0 {
        return Err(KernelError::Empty);
    }
    let mut head = [0u8; HEAD_LEN];
    let head_len = usize::try_from(len).unwrap_or(HEAD_LEN).min(HEAD_LEN);
    let head = head.get_mut(..head_len).unwrap_or_default();
    file.read_exact_at(head, 0)?;
    let image = Image::new(file, len, low_ram);
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

/// Magic numbers of files that users pass by mistake.
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
#[path = "format_test.rs"]
mod tests;
