//! bzImage kernels: a setup header, then a compressed kernel that unpacks itself.
//!
//! `format` calls it for files with the setup magic. It follows Documentation/x86/boot.rst, skips the 16-bit setup code and
//! uses the 64-bit entry point.

use linux_loader::bootparam::setup_header;
use vm_memory::ByteValued;

use crate::kernel::cmdline;
use crate::kernel::image::{Image, Kernel, KernelError};
use crate::kernel::placement::FileSegment;
use crate::layout;
use crate::x86_64::Protocol;

pub(crate) const MAGIC: &[u8; 4] = b"HdrS";
pub(crate) const MAGIC_OFFSET: usize = 0x202;
pub(crate) const BOOT_FLAG: u16 = 0xaa55;
/// `loadflags`: the protected-mode code is loaded at 1 MiB.
pub(crate) const LOADED_HIGH: u8 = 1;
/// Boot protocol 2.12 (Linux 3.8), the first with `xloadflags`, which announces a 64-bit entry point.
pub(crate) const MIN_VERSION: u16 = 0x020c;

const HEADER_OFFSET: u64 = 0x1f1;
const MAGIC_ADDRESS: u64 = 0x202;
/// Offset of the byte that holds the header's length, as the distance of a jump over it.
const HEADER_LEN_OFFSET: u64 = 0x201;
/// Boot protocol 2.06, the first with `cmdline_size`.
const OLDEST_VERSION: u16 = 0x0206;
/// `xloadflags`: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1;
/// Offset of the 64-bit entry point in the protected-mode code.
const ENTRY_64: u64 = 0x200;
const SECTOR: u64 = 512;
/// Meaning of 0 in `setup_sects`.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// Unit of `syssize`.
const PARAGRAPH: u64 = 16;

/// Reads and checks a bzImage.
pub(crate) fn inspect(image: &Image<'_>) -> Result<Kernel, KernelError> {
    let header = read_header(image)?;
    check_header(&header)?;

    let sectors = if header.setup_sects == 0 {
        DEFAULT_SETUP_SECTORS
    } else {
        header.setup_sects
    };
    let payload_offset = (u64::from(sectors) + 1) * SECTOR;
    let payload_len = payload_len(image, &header, payload_offset)?;

    // A relocatable kernel runs where it is loaded, but unpacks itself to its preferred address if it is loaded below.
    // Any other kernel must be loaded at that address.
    let relocatable = header.relocatable_kernel != 0;
    let load_addr = if relocatable || header.pref_address == 0 {
        layout::HIGH_RAM_START
    } else {
        header.pref_address
    };
    let run_addr = load_addr.max(header.pref_address);
    let load_end = image.extent_end(load_addr, payload_len)?;
    let run_end = image.extent_end(run_addr, u64::from(header.init_size))?;
    let end = load_end.max(run_end);
    image.check_in_memory(load_addr, end)?;

    let code32_start = u32::try_from(load_addr)
        .map_err(|_| KernelError::Malformed("its load address is beyond 4 GiB"))?;
    let cmdline_len = usize::try_from(header.cmdline_size).unwrap_or(usize::MAX);
    Ok(Kernel {
        protocol: Protocol::Linux64,
        entry: load_addr + ENTRY_64,
        segments: vec![FileSegment {
            guest_addr: load_addr,
            file_offset: payload_offset,
            len: payload_len,
        }],
        end,
        cmdline_capacity: cmdline_len.saturating_add(1).min(cmdline::MAX_CAPACITY),
        initrd_addr_max: u64::from(header.initrd_addr_max),
        setup_header: setup_header {
            code32_start,
            ..header
        },
    })
}

/// Reads as much of the header as the kernel declares. Code follows it in the file.
fn read_header(image: &Image<'_>) -> Result<setup_header, KernelError> {
    const WHAT: &str = "the setup header";
    let mut len = [0u8; 1];
    image.read(WHAT, HEADER_LEN_OFFSET, &mut len)?;
    let end = MAGIC_ADDRESS + u64::from(u8::from_le_bytes(len));
    let mut header = setup_header::default();
    let bytes = header.as_mut_slice();
    let len = usize::try_from(end - HEADER_OFFSET)
        .unwrap_or(usize::MAX)
        .min(bytes.len());
    image.read(
        WHAT,
        HEADER_OFFSET,
        bytes.get_mut(..len).unwrap_or_default(),
    )?;
    Ok(header)
}

fn check_header(header: &setup_header) -> Result<(), KernelError> {
    if header.boot_flag != BOOT_FLAG {
        return Err(KernelError::Malformed("its boot flag is not 0xaa55"));
    }
    if header.version < OLDEST_VERSION {
        return Err(KernelError::Unsupported(
            "its boot protocol is older than 2.06 (before Linux 2.6.22); take a newer kernel",
        ));
    }
    if header.loadflags & LOADED_HIGH == 0 {
        return Err(KernelError::Unsupported(
            "a zImage, which loads below 1 MiB; build a bzImage",
        ));
    }
    if header.version < MIN_VERSION || header.xloadflags & XLF_KERNEL_64 == 0 {
        return Err(KernelError::Unsupported(
            "it has no 64-bit entry point (a 32-bit kernel, or one before Linux 3.8); take an x86-64 kernel",
        ));
    }
    Ok(())
}

/// Returns the number of bytes of protected-mode code. The file may have a signature after it.
fn payload_len(image: &Image<'_>, header: &setup_header, offset: u64) -> Result<u64, KernelError> {
    const WHAT: &str = "the compressed kernel";
    image.check_in_file(WHAT, offset, ENTRY_64 + PARAGRAPH)?;
    let available = image.len.saturating_sub(offset);
    let stated = u64::from(header.syssize) * PARAGRAPH;
    if stated == 0 {
        return Ok(available);
    }
    if stated > available {
        return Err(KernelError::Truncated {
            what: WHAT,
            needs: offset + stated,
            has: image.len,
        });
    }
    Ok(stated)
}

#[cfg(test)]
#[path = "bzimage_test.rs"]
mod tests;
