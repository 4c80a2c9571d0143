//! Kernels made for tests: the smallest files that pass, to be broken one way at a time.
//!
//! Used by the tests of this crate only.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use proptest::test_runner::{Config, RngSeed};
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{GuestAddress, GuestRegionMmap};

use crate::{BootError, BootPlan, BootSource, GuestMemory, layout, load};

/// Fixed seed and no regression files, so that a run can be repeated; `PROPTEST_CASES` sets the count.
pub(crate) fn proptest_config() -> Config {
    Config {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6261_6e74_616d),
        ..Config::default()
    }
}

/// Guest memory of `mib` MiB, laid out as the monitor does.
pub(crate) fn memory(mib: u64) -> GuestMemory {
    let ranges: Vec<_> = layout::ram_ranges(mib << 20)
        .into_iter()
        .map(|(base, len)| (base, usize::try_from(len).unwrap()))
        .collect();
    memory_at(&ranges)
}

/// Guest memory of these addresses and lengths.
pub(crate) fn memory_at(ranges: &[(u64, usize)]) -> GuestMemory {
    let region = |&(start, len): &(u64, usize)| {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let mapping = MmapRegionBuilder::new(len)
            .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
            .with_mmap_flags(flags)
            .build()
            .unwrap();
        GuestRegionMmap::new(mapping, GuestAddress(start)).unwrap()
    };
    GuestMemory::from_regions(ranges.iter().map(region).collect()).unwrap()
}

/// An unnamed file with `content`.
pub(crate) fn file(content: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(content).unwrap();
    file
}

/// Loads `kernel` into `mem` with nothing else.
pub(crate) fn load_kernel(mem: &GuestMemory, kernel: &[u8]) -> Result<BootPlan, BootError> {
    load_all(mem, kernel, None, "console=ttyS0")
}

/// Loads `kernel`, an initrd and a command line.
pub(crate) fn load_all(
    mem: &GuestMemory,
    kernel: &[u8],
    initrd: Option<&[u8]>,
    cmdline: &str,
) -> Result<BootPlan, BootError> {
    let kernel = file(kernel);
    let initrd = initrd.map(file);
    load(
        mem,
        &BootSource {
            kernel: &kernel,
            kernel_path: Path::new("kernel.bin"),
            initrd: initrd.as_ref().map(|file| (file, Path::new("initrd.img"))),
            cmdline,
            vcpus: 1,
            devices: &[],
            i8042: true,
        },
    )
}

/// Everything an error says, the chain in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// Overwrites bytes at an offset.
pub(crate) fn patch(image: &mut [u8], offset: usize, bytes: &[u8]) {
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// File offset of the program headers of [`elf`].
pub(crate) const PROGRAM_HEADERS: usize = 64;
/// File offset of the load segment of [`elf`].
pub(crate) const ELF_TEXT: usize = 0x1000;
/// Guest-physical address of that segment.
pub(crate) const ELF_BASE: u64 = 0x100_0000;
/// The PVH entry of [`elf`] with a note, the entry without.
pub(crate) const ELF_PVH_ENTRY: u32 = 0x100_0040;
pub(crate) const ELF_ENTRY: u64 = 0x100_0010;

/// An ELF kernel with one load segment of 0x1800 bytes in the file and 0x3000 in memory, and a note segment.
pub(crate) fn elf(pvh: bool) -> Vec<u8> {
    let mut image = vec![0u8; ELF_TEXT];
    patch(&mut image, 0, b"\x7fELF\x02\x01\x01");
    patch(&mut image, 16, &2u16.to_le_bytes()); // e_type
    patch(&mut image, 18, &62u16.to_le_bytes()); // e_machine
    patch(&mut image, 24, &ELF_ENTRY.to_le_bytes());
    patch(&mut image, 32, &(PROGRAM_HEADERS as u64).to_le_bytes());
    patch(&mut image, 54, &56u16.to_le_bytes()); // e_phentsize
    patch(&mut image, 56, &2u16.to_le_bytes()); // e_phnum
    let mut notes = note(b"GNU\0", 3, &[0xaa; 20]);
    notes.extend(note(
        b"Xen\0",
        if pvh { 18 } else { 17 },
        &ELF_PVH_ENTRY.to_le_bytes(),
    ));
    let notes_at = 0x800;
    patch(&mut image, notes_at, &notes);
    patch(
        &mut image,
        PROGRAM_HEADERS,
        &program_header(1, ELF_TEXT as u64, ELF_BASE, 0x1800, 0x3000),
    );
    let len = notes.len() as u64;
    patch(
        &mut image,
        PROGRAM_HEADERS + 56,
        &program_header(4, notes_at as u64, 0, len, len),
    );
    image.extend((0..0x1800).map(|i: usize| i.to_le_bytes()[0] | 1));
    image
}

pub(crate) fn program_header(
    kind: u32,
    offset: u64,
    addr: u64,
    file_len: u64,
    mem_len: u64,
) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), 7u32.to_le_bytes()].concat();
    for field in [
        offset,
        addr.wrapping_sub(0x8000_0000),
        addr,
        file_len,
        mem_len,
        0x1000,
    ] {
        bytes.extend(field.to_le_bytes());
    }
    bytes
}

pub(crate) fn note(owner: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
    let len = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let mut note = [len(owner), len(desc), kind.to_le_bytes()].concat();
    for field in [owner, desc] {
        note.extend(field);
        note.resize(note.len().next_multiple_of(4), 0);
    }
    note
}

/// Bytes of protected-mode code in [`bzimage`].
pub(crate) const BZ_PAYLOAD: usize = 0x5000;
/// File offset of that code.
pub(crate) const BZ_SETUP: usize = 0x1000;

/// A relocatable 64-bit bzImage that prefers 16 MiB and needs 4 MiB there.
pub(crate) fn bzimage() -> Vec<u8> {
    let mut image = vec![0u8; BZ_SETUP];
    patch(&mut image, 0, b"MZ");
    patch(&mut image, 0x1f1, &[7]); // setup_sects
    patch(
        &mut image,
        0x1f4,
        &u32::try_from(BZ_PAYLOAD / 16).unwrap().to_le_bytes(),
    );
    patch(&mut image, 0x1fe, &0xaa55u16.to_le_bytes());
    patch(&mut image, 0x200, &[0xeb, 0x6a]);
    patch(&mut image, 0x202, b"HdrS");
    patch(&mut image, 0x206, &0x020fu16.to_le_bytes());
    patch(&mut image, 0x211, &[1]); // loadflags
    patch(&mut image, 0x22c, &0x7fff_ffffu32.to_le_bytes()); // initrd_addr_max
    patch(&mut image, 0x230, &0x20_0000u32.to_le_bytes()); // kernel_alignment
    patch(&mut image, 0x234, &[1]); // relocatable
    patch(&mut image, 0x236, &0x7fu16.to_le_bytes()); // xloadflags
    patch(&mut image, 0x238, &2047u32.to_le_bytes()); // cmdline_size
    patch(&mut image, 0x258, &0x100_0000u64.to_le_bytes()); // pref_address
    patch(&mut image, 0x260, &0x40_0000u32.to_le_bytes()); // init_size
    image.extend((0..BZ_PAYLOAD).map(|i: usize| i.to_le_bytes()[0] | 1));
    image
}
