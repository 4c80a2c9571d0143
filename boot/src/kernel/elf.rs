//! ELF kernels: vmlinux, and any other 64-bit x86 executable with a physical entry address or a PVH note.
//!
//! `format` calls it for files with ELF magic. It reads program headers and notes, and ignores sections, symbols and
//! relocations.

use linux_loader::bootparam::setup_header;
use linux_loader::elf::{Elf64_Ehdr, Elf64_Nhdr, Elf64_Phdr, PT_LOAD, PT_NOTE};
use vm_memory::ByteValued;

use crate::kernel::bzimage;
use crate::kernel::cmdline;
use crate::kernel::image::{Image, Kernel, KernelError};
use crate::kernel::placement::FileSegment;
use crate::x86_64::Protocol;

pub(crate) const MAGIC: &[u8] = b"\x7fELF";

const CLASS_INDEX: usize = 4;
const DATA_INDEX: usize = 5;
const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const TYPE_EXEC: u16 = 2;
const TYPE_DYN: u16 = 3;
const MACHINE_X86_64: u16 = 62;

/// Largest number of program headers, to bound the work for a hostile file. A Linux kernel has about five.
const MAX_PROGRAM_HEADERS: u16 = 128;
/// Largest size of the notes in bytes. Linux has a few hundred bytes.
const MAX_NOTES_LEN: u64 = 64 << 10;

/// `XEN_ELFNOTE_PHYS32_ENTRY`: the PVH entry point (Xen public/elfnote.h).
const NOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_OWNER: &[u8] = b"Xen\0";
/// Alignment of a note's name and descriptor.
const NOTE_ALIGN: usize = 4;

/// Reads and checks an ELF kernel.
pub(crate) fn inspect(image: &Image<'_>) -> Result<Kernel, KernelError> {
    let header: Elf64_Ehdr = image.read_struct("the ELF header", 0)?;
    check_header(&header)?;
    let program_headers = read_program_headers(image, &header)?;

    let mut segments = Vec::new();
    let mut extents = Vec::new();
    let mut pvh_entry = None;
    for segment in &program_headers {
        match segment.p_type {
            PT_LOAD if segment.p_memsz > 0 => {
                if segment.p_filesz > segment.p_memsz {
                    return Err(KernelError::Malformed(
                        "a segment has more bytes in the file than in memory",
                    ));
                }
                image.check_in_file("a segment", segment.p_offset, segment.p_filesz)?;
                let end = image.extent_end(segment.p_paddr, segment.p_memsz)?;
                extents.push((segment.p_paddr, end));
                if segment.p_filesz > 0 {
                    segments.push(FileSegment {
                        guest_addr: segment.p_paddr,
                        file_offset: segment.p_offset,
                        len: segment.p_filesz,
                    });
                }
            }
            PT_NOTE if pvh_entry.is_none() => {
                pvh_entry = find_pvh_entry(&read_notes(image, segment)?)?
            }
            _ => {}
        }
    }
    check_disjoint(&mut extents)?;
    let (Some(&(start, _)), Some(&(_, end))) = (extents.first(), extents.last()) else {
        return Err(KernelError::Malformed("it has no segment to load"));
    };
    image.check_in_memory(start, end)?;

    let (protocol, entry) = match pvh_entry {
        Some(entry) => (Protocol::Pvh, u64::from(entry)),
        None => (Protocol::Linux64, header.e_entry),
    };
    if !extents
        .iter()
        .any(|&(start, end)| (start..end).contains(&entry))
    {
        return Err(KernelError::Malformed(
            "its entry point is in none of its segments (it must be a physical address)",
        ));
    }
    Ok(Kernel {
        protocol,
        entry,
        segments,
        end,
        cmdline_capacity: cmdline::DEFAULT_CAPACITY,
        initrd_addr_max: u64::from(u32::MAX),
        setup_header: synthetic_setup_header(),
    })
}

fn check_header(header: &Elf64_Ehdr) -> Result<(), KernelError> {
    if header.e_ident.get(DATA_INDEX) != Some(&LITTLE_ENDIAN) {
        return Err(KernelError::Unsupported(
            "a big-endian ELF file; it is for another machine",
        ));
    }
    if header.e_ident.get(CLASS_INDEX) != Some(&CLASS_64) {
        return Err(KernelError::Unsupported(
            "a 32-bit ELF file; build a 64-bit kernel",
        ));
    }
    if header.e_machine != MACHINE_X86_64 {
        return Err(KernelError::Unsupported(
            "an ELF file for another machine; build it for x86-64",
        ));
    }
    if header.e_type != TYPE_EXEC && header.e_type != TYPE_DYN {
        return Err(KernelError::Unsupported(
            "an ELF file, but not an executable (an object file or a kernel module?)",
        ));
    }
    if usize::from(header.e_phentsize) != size_of::<Elf64_Phdr>() {
        return Err(KernelError::Malformed(
            "its ELF program headers have the wrong size",
        ));
    }
    if header.e_phnum == 0 || header.e_phnum > MAX_PROGRAM_HEADERS {
        return Err(KernelError::Malformed(
            "it has no ELF program headers, or too many",
        ));
    }
    Ok(())
}

fn read_program_headers(
    image: &Image<'_>,
    header: &Elf64_Ehdr,
) -> Result<Vec<Elf64_Phdr>, KernelError> {
    let mut headers = vec![Elf64_Phdr::default(); usize::from(header.e_phnum)];
    let mut offset = header.e_phoff;
    for entry in &mut headers {
        image.read("the program header table", offset, entry.as_mut_slice())?;
        offset = offset.saturating_add(u64::from(header.e_phentsize));
    }
    Ok(headers)
}

/// Sorts `extents` by address and checks that they do not overlap.
fn check_disjoint(extents: &mut [(u64, u64)]) -> Result<(), KernelError> {
    extents.sort_unstable();
    let overlap = extents
        .iter()
        .zip(extents.iter().skip(1))
        .any(|(one, next)| one.1 > next.0);
    if overlap {
        return Err(KernelError::Malformed("its segments overlap in memory"));
    }
    Ok(())
}

fn read_notes(image: &Image<'_>, segment: &Elf64_Phdr) -> Result<Vec<u8>, KernelError> {
    if segment.p_filesz > MAX_NOTES_LEN {
        return Err(KernelError::Malformed("its notes are too long"));
    }
    let len = usize::try_from(segment.p_filesz)
        .map_err(|_| KernelError::Malformed("its notes are too long"))?;
    let mut notes = vec![0; len];
    image.read("the notes", segment.p_offset, &mut notes)?;
    Ok(notes)
}

/// Returns the descriptor of the PVH note, if there is one. Stops without an error at the first malformed note.
fn find_pvh_entry(mut notes: &[u8]) -> Result<Option<u32>, KernelError> {
    while let Some((header, rest)) = notes.split_at_checked(size_of::<Elf64_Nhdr>()) {
        let mut note = Elf64_Nhdr::default();
        note.as_mut_slice().copy_from_slice(header);
        let (Ok(name_len), Ok(desc_len)) = (
            usize::try_from(note.n_namesz),
            usize::try_from(note.n_descsz),
        ) else {
            break;
        };
        let Some((name, rest)) = split_padded(rest, name_len) else {
            break;
        };
        let Some((desc, rest)) = split_padded(rest, desc_len) else {
            break;
        };
        if note.n_type == NOTE_PHYS32_ENTRY && name == NOTE_OWNER {
            let entry = desc
                .first_chunk()
                .ok_or(KernelError::Malformed("its PVH note is too short"))?;
            return Ok(Some(u32::from_le_bytes(*entry)));
        }
        notes = rest;
    }
    Ok(None)
}

/// Splits off `len` bytes and the padding after them, which may be missing at the end.
fn split_padded(bytes: &[u8], len: usize) -> Option<(&[u8], &[u8])> {
    let field = bytes.get(..len)?;
    let padded = len.checked_next_multiple_of(NOTE_ALIGN)?;
    Some((field, bytes.get(padded..).unwrap_or_default()))
}

/// Returns a setup header for a vmlinux, which has none, with the fields that the 64-bit protocol requires.
fn synthetic_setup_header() -> setup_header {
    setup_header {
        boot_flag: bzimage::BOOT_FLAG,
        header: u32::from_le_bytes(*bzimage::MAGIC),
        version: bzimage::MIN_VERSION,
        loadflags: bzimage::LOADED_HIGH,
        kernel_alignment: 0x100_0000,
        ..setup_header::default()
    }
}

#[cfg(test)]
#[path = "elf_test.rs"]
mod tests;
