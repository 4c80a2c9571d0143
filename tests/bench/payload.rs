//! Kernels that signal their first instruction by a byte on the serial port.
//!
//! A kernel is either nothing else, or a real one with overwritten entry points, so that all of the loading is real. The kernels
//! run on any `/dev/kvm`, also on one that interprets guests.

use crate::Failure;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The byte. It is not ASCII, so that no monitor's message contains it.
pub const MARK: u8 = 0xa5;

/// `mov dx, 0x3f8; mov al, MARK; out dx, al; hlt; jmp .-1`, the same in 32-bit and 64-bit mode.
const CODE: [u8; 10] = [0x66, 0xba, 0xf8, 0x03, 0xb0, MARK, 0xee, 0xf4, 0xeb, 0xfd];
/// The same in real mode.
const CODE_16: [u8; 9] = [0xba, 0xf8, 0x03, 0xb0, MARK, 0xee, 0xf4, 0xeb, 0xfd];
/// `mov dx, 0x3f8; 1: mov al, MARK; out dx, al; mov ecx, 100; 2: dec ecx; jnz 2b; jmp 1b`.
const BUSY: [u8; 18] = [
    0x66, 0xba, 0xf8, 0x03, 0xb0, MARK, 0xee, 0xb9, 100, 0, 0, 0, 0xff, 0xc9, 0x75, 0xfc, 0xeb,
    0xf2,
];
/// `1: mov byte [rdi], 1; add rdi, 4096; cmp rdi, rsi; jb 1b`.
const TOUCH: [u8; 15] = [
    0xc6, 0x07, 1, 0x48, 0x81, 0xc7, 0, 0x10, 0, 0, 0x48, 0x39, 0xf7, 0x72, 0xf1,
];
/// A page directory at 2 MiB for the fifth GiB, in the table that is in use:
/// `mov edi, 0x200000; mov rax, 0x100000083; mov ecx, 512; 1: mov [rdi], rax; add rdi, 8; add rax, 0x200000; dec ecx;
/// jnz 1b; mov rbx, cr3; mov rbx, [rbx]; and rbx, -4096; mov qword [rbx + 32], 0x200003`.
const MAP_FIFTH: [u8; 58] = [
    0xbf, 0, 0, 0x20, 0, 0x48, 0xb8, 0x83, 0, 0, 0, 1, 0, 0, 0, 0xb9, 0, 2, 0, 0, 0x48, 0x89, 0x07,
    0x48, 0x83, 0xc7, 8, 0x48, 0x05, 0, 0, 0x20, 0, 0xff, 0xc9, 0x75, 0xef, 0x0f, 0x20, 0xdb, 0x48,
    0x8b, 0x1b, 0x48, 0x81, 0xe3, 0, 0xf0, 0xff, 0xff, 0x48, 0xc7, 0x43, 0x20, 3, 0, 0x20, 0,
];

/// Increments a byte in each page from 16 MiB to 48 MiB and then writes the mark, for ever: `mov edi, 0x1000000`;
/// `inc byte [rdi]; add edi, 4096; cmp edi, 0x3000000; jb` back to `inc`; the mark; a delay; `jmp` to the start.
const TOUCHING: [u8; 40] = [
    0xbf, 0x00, 0x00, 0x00, 0x01, // mov edi, 0x1000000
    0xfe, 0x07, // inc byte [rdi]
    0x81, 0xc7, 0x00, 0x10, 0x00, 0x00, // add edi, 4096
    0x81, 0xff, 0x00, 0x00, 0x00, 0x03, // cmp edi, 0x3000000
    0x72, 0xf0, // jb
    0x66, 0xba, 0xf8, 0x03, 0xb0, MARK, 0xee, // the mark
    0xb9, 0x80, 0x1a, 0x06, 0x00, // mov ecx, 400000
    0xe2, 0xfe, // loop $
    0xe9, 0xd8, 0xff, 0xff, 0xff, // jmp
];

/// Load address and entry point of the small kernel.
const ENTRY: u64 = 0x10_0000;
const HEADER_LEN: u64 = 64;
const PROGRAM_HEADER_LEN: u64 = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
/// XEN_ELFNOTE_PHYS32_ENTRY: the PVH entry point.
const NOTE_PHYS32_ENTRY: u32 = 18;
const NOTE_OWNER: &[u8] = b"Xen\0";
/// Offset of the code after two headers.
const CODE_OFFSET: u64 = HEADER_LEN + 2 * PROGRAM_HEADER_LEN;
const NOTE_LEN: u64 = 20;

/// Writes an ELF kernel that only writes the mark, with a 64-bit entry and a PVH entry. Returns its path.
pub fn write_small(dir: &Path) -> Result<PathBuf, Failure> {
    write(dir, &CODE)
}

/// Writes an ELF kernel that touches each page of `ranges` of addresses and then writes the mark for ever. Returns its path. It must
/// be entered in 64-bit mode with the first 4 GiB mapped; it maps the fifth itself.
pub fn write_busy(dir: &Path, ranges: &[(u64, u64)]) -> Result<PathBuf, Failure> {
    let mut code = Vec::new();
    if ranges.iter().any(|(_, end)| *end > 4 << 30) {
        code.extend(MAP_FIFTH);
    }
    for (start, end) in ranges {
        code.extend([0x48, 0xbf]); // mov rdi, start
        code.extend(start.to_le_bytes());
        code.extend([0x48, 0xbe]); // mov rsi, end
        code.extend(end.to_le_bytes());
        code.extend(TOUCH);
    }
    code.extend(BUSY);
    write(dir, &code)
}

/// Writes an ELF kernel that touches 32 MiB before each mark, and waits after it. Returns its path.
pub fn write_touching(dir: &Path) -> Result<PathBuf, Failure> {
    write(dir, &TOUCHING)
}

/// Compiles a kernel that idles between marks. Returns its path.
pub fn build_idle(dir: &Path) -> Result<PathBuf, Failure> {
    let kernel = dir.join("idle");
    let script = crate::project().join("tests/guest/build.sh");
    let built = Command::new(&script).arg(&kernel).arg("idle.c").status()?;
    match built.success() {
        true => Ok(kernel),
        false => Err(format!("{}: {built}", script.display()).into()),
    }
}

/// Returns an ELF kernel with `code`.
fn write(dir: &Path, code: &[u8]) -> Result<PathBuf, Failure> {
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    elf.extend([2, 0, 62, 0]); // executable, x86-64
    elf.extend(1_u32.to_le_bytes());
    for field in [ENTRY, HEADER_LEN, 0] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 2, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let note_offset = (CODE_OFFSET + u64::try_from(code.len())?).next_multiple_of(4);
    let segment = note_offset + NOTE_LEN;
    for (kind, offset, len) in [(PT_LOAD, 0, segment), (PT_NOTE, note_offset, NOTE_LEN)] {
        elf.extend(kind.to_le_bytes());
        elf.extend(5_u32.to_le_bytes()); // read, execute
        let at = ENTRY + offset;
        for field in [offset, at, at, len, len, 4] {
            elf.extend(field.to_le_bytes());
        }
    }
    let entry = ENTRY + CODE_OFFSET;
    put(&mut elf, 24, &entry.to_le_bytes())?;
    elf.extend(code);
    elf.resize(usize::try_from(note_offset)?, 0);
    for field in [4, 4, NOTE_PHYS32_ENTRY] {
        elf.extend(field.to_le_bytes());
    }
    elf.extend(NOTE_OWNER);
    elf.extend(u32::try_from(entry)?.to_le_bytes());
    let path = dir.join("payload");
    fs::write(&path, elf)?;
    Ok(path)
}

/// Copies an ELF kernel and overwrites its ELF entry and its PVH entry.
pub fn mark_elf(kernel: &Path, marked: &Path) -> Result<(), Failure> {
    let mut elf = fs::read(kernel)?;
    let mut entries = vec![number::<8>(&elf, 24)?];
    let mut loads = Vec::new();
    for index in 0..number::<2>(&elf, 56)? {
        let header = usize::try_from(number::<8>(&elf, 32)? + index * PROGRAM_HEADER_LEN)?;
        let offset = number::<8>(&elf, header + 8)?;
        let address = number::<8>(&elf, header + 24)?;
        let len = number::<8>(&elf, header + 32)?;
        match u32::try_from(number::<4>(&elf, header)?)? {
            PT_LOAD => loads.push((offset, address, len)),
            PT_NOTE => entries.extend(pvh_entry(&elf, offset, len)?),
            _ => {}
        }
    }
    for entry in entries {
        let load = loads
            .iter()
            .find(|(_, address, len)| (*address..*address + *len).contains(&entry));
        let (offset, address, _) = load.ok_or(format!("the entry {entry:#x} is in no segment"))?;
        put(&mut elf, usize::try_from(offset + entry - address)?, &CODE)?;
    }
    Ok(fs::write(marked, elf)?)
}

/// Returns the PVH entry if the notes at `offset` have one.
fn pvh_entry(elf: &[u8], offset: u64, len: u64) -> Result<Option<u64>, Failure> {
    let mut at = usize::try_from(offset)?;
    let end = at + usize::try_from(len)?;
    while at + 12 <= end {
        let name_len = usize::try_from(number::<4>(elf, at)?)?;
        let desc_len = usize::try_from(number::<4>(elf, at + 4)?)?;
        let kind = number::<4>(elf, at + 8)?;
        let desc = at + 12 + name_len.next_multiple_of(4);
        let owner = elf.get(at + 12..at + 12 + name_len).unwrap_or_default();
        if kind == u64::from(NOTE_PHYS32_ENTRY) && owner == NOTE_OWNER {
            return Ok(Some(number::<4>(elf, desc)?));
        }
        at = desc + desc_len.next_multiple_of(4);
    }
    Ok(None)
}

/// Copies a bzImage and overwrites the entries of its boot protocols (Linux, Documentation/arch/x86/boot.rst): real mode after
/// the header, 32-bit and 64-bit mode.
pub fn mark_bzimage(kernel: &Path, marked: &Path) -> Result<(), Failure> {
    let mut image = fs::read(kernel)?;
    if image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(format!("{} is no bzImage", kernel.display()).into());
    }
    let setup_sectors = match number::<1>(&image, 0x1f1)? {
        0 => 4,
        some => some,
    };
    let protected = usize::try_from((setup_sectors + 1) * 512)?;
    // The jump over the header, two bytes long.
    let real = 0x202 + usize::try_from(number::<1>(&image, 0x201)?)?;
    put(&mut image, real, &CODE_16)?;
    put(&mut image, protected, &CODE)?;
    put(&mut image, protected + 0x200, &CODE)?;
    Ok(fs::write(marked, image)?)
}

/// Returns the `N`-byte little-endian number at `offset`.
pub fn number<const N: usize>(bytes: &[u8], offset: usize) -> Result<u64, Failure> {
    let found = bytes.get(offset..).and_then(|rest| rest.first_chunk::<N>());
    let found = found.ok_or("the file is too short")?;
    Ok(found
        .iter()
        .rev()
        .fold(0, |n, byte| n << 8 | u64::from(*byte)))
}

fn put(bytes: &mut [u8], offset: usize, what: &[u8]) -> Result<(), Failure> {
    let place = bytes.get_mut(offset..offset + what.len());
    place.ok_or("the file is too short")?.copy_from_slice(what);
    Ok(())
}
