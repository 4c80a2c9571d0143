//! Loads a kernel into guest memory: kernel, initrd, command line, memory map, ACPI tables and the initial register
//! state.
//!
//! The monitor's machine builder calls [`load`] (or [`load_with`], to map the files instead of copying them) once,
//! after guest memory exists and before the first vCPU runs. Nothing here issues a KVM ioctl, and nothing runs
//! after the guest has started. A kernel or initrd file is untrusted: a bad one gives an error that says what is
//! wrong with it and what to do, never a panic, and never a write outside guest memory.
//!
//! | room | subject |
//! |---|---|
//! | [`layout`] | the address map |
//! | [`kernel`] | kernel and initrd files, the command line, and their places in guest memory |
//! | `memory_map` | the RAM ranges that the guest sees |
//! | [`acpi`] | the tables that describe processors, devices and power management |
//! | [`x86_64`] | the first processor's registers, the zero page and the PVH start info |

use std::fs::File;
use std::path::{Path, PathBuf};

use thiserror::Error;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

pub mod acpi;
#[cfg(test)]
mod fixtures;
pub mod kernel;
pub mod layout;
mod memory_map;
pub mod x86_64;

pub use acpi::AcpiError;
pub use kernel::cmdline::{CmdlineError, CommandLine};
pub use kernel::{FilePiece, InitrdError, KernelError, Mapper};
pub use layout::VirtioMmioWindow;
pub use memory_map::GuestMemory;
pub use x86_64::{DescriptorTable, EntryState, Protocol, Segment};

/// The kernel to boot and the machine to describe to it.
#[derive(Debug, Clone, Copy)]
pub struct BootSource<'a> {
    /// The kernel: an ELF vmlinux or a bzImage, open for reading.
    pub kernel: &'a File,
    /// Its path, for messages.
    pub kernel_path: &'a Path,
    /// The initial RAM disk and its path.
    pub initrd: Option<(&'a File, &'a Path)>,
    /// The kernel command line, complete.
    pub cmdline: &'a str,
    /// Number of processors, 1 to 254; their APIC ids are 0, 1, ….
    pub vcpus: u8,
    /// The virtio-mmio windows that hold a device.
    pub devices: &'a [VirtioMmioWindow],
    /// Whether there is an i8042 keyboard controller.
    pub i8042: bool,
}

/// The result of loading: the initial state of the boot processor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BootPlan {
    /// The boot protocol chosen for this kernel.
    pub protocol: Protocol,
    /// The boot processor's registers.
    pub entry: EntryState,
    /// First byte after the memory the kernel needs before it knows its memory map.
    pub kernel_end: u64,
    /// Guest-physical address and bytes of the initrd.
    pub initrd: Option<(u64, u64)>,
}

/// The reason why a guest cannot be booted.
#[derive(Debug, Error)]
pub enum BootError {
    /// The kernel file is unusable.
    #[error("cannot boot kernel {}", path.display())]
    Kernel {
        /// The kernel file.
        path: PathBuf,
        /// The error of the kernel file.
        #[source]
        source: KernelError,
    },
    /// The initrd file is unusable.
    #[error("cannot load initrd {}", path.display())]
    Initrd {
        /// The initrd file.
        path: PathBuf,
        /// The error of the initrd file.
        #[source]
        source: InitrdError,
    },
    /// The command line is unusable.
    #[error("invalid kernel command line")]
    Cmdline(#[from] CmdlineError),
    /// The machine cannot be described.
    #[error("cannot describe the machine to the guest")]
    Acpi(#[from] AcpiError),
    /// Guest memory is too small for the boot structures.
    #[error(
        "guest memory is too small: {bytes} bytes of RAM start at address 0, at least {} are needed",
        layout::HIGH_RAM_START
    )]
    MemoryTooSmall {
        /// Contiguous RAM from address 0.
        bytes: u64,
    },
    /// Writing the zero page or the PVH start info failed.
    #[error("cannot hand the boot parameters to the kernel")]
    BootInfo(#[from] linux_loader::configurator::Error),
    /// Writing another boot structure failed.
    #[error("cannot write {what} to guest memory")]
    Write {
        /// Name of the structure.
        what: &'static str,
        /// The error of vm-memory.
        #[source]
        source: GuestMemoryError,
    },
}

/// Loads everything that a guest needs into `mem`, copying the files.
///
/// `mem` is laid out by [`layout::ram_ranges`] and zero. Nothing is written before all of `source` was checked.
///
/// # Errors
///
/// [`BootError`], which names the file or setting and the remedy.
pub fn load(mem: &GuestMemory, source: &BootSource<'_>) -> Result<BootPlan, BootError> {
    load_with(mem, source, &mut |_| false)
}

/// Like [`load`], but offers the complete pages of each file segment to `mapper` first, which may map them privately. Pages
/// that it does not map are copied.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(
    mem: &GuestMemory,
    source: &BootSource<'_>,
    mapper: &mut Mapper<'_>,
) -> Result<BootPlan, BootError> {
    let low_ram = memory_map::low_ram_end(mem);
    if low_ram < layout::HIGH_RAM_START {
        return Err(BootError::MemoryTooSmall { bytes: low_ram });
    }
    let kernel_error = |error| BootError::Kernel {
        path: source.kernel_path.to_owned(),
        source: error,
    };
    let write_error = |what| move |source| BootError::Write { what, source };

    let kernel = kernel::inspect(source.kernel, low_ram).map_err(kernel_error)?;
    let cmdline = CommandLine::with_capacity(source.cmdline, kernel.cmdline_capacity)?;
    let initrd = match source.initrd {
        Some((file, path)) => Some(
            kernel::Initrd::inspect(file, kernel.initrd_range(low_ram)).map_err(|error| {
                BootError::Initrd {
                    path: path.to_owned(),
                    source: error,
                }
            })?,
        ),
        None => None,
    };
    let initrd_extent = initrd.as_ref().map(|initrd| (initrd.addr, initrd.len));
    let tables = acpi::Tables::new(source.vcpus, source.devices, source.i8042)?;

    kernel
        .place(mem, source.kernel, mapper)
        .map_err(kernel_error)?;
    if let (Some(initrd), Some((file, path))) = (&initrd, source.initrd) {
        initrd
            .place(mem, file, mapper)
            .map_err(|error| BootError::Initrd {
                path: path.to_owned(),
                source: error,
            })?;
    }
    let cmdline_bytes = [cmdline.as_str().as_bytes(), b"\0"].concat();
    mem.write_slice(&cmdline_bytes, GuestAddress(layout::CMDLINE_START))
        .map_err(write_error("the command line"))?;
    mem.write_slice(tables.bytes(), GuestAddress(layout::ACPI_START))
        .map_err(write_error("the ACPI tables"))?;
    mem.write_slice(&x86_64::RESET_CODE, GuestAddress(layout::RESET_VECTOR))
        .map_err(write_error("the reset code"))?;

    let info = x86_64::boot_info::BootInfo {
        memory_map: memory_map::memory_map(mem),
        initrd: initrd_extent,
    };
    match kernel.protocol {
        Protocol::Linux64 => {
            info.write_zero_page(mem, kernel.setup_header)?;
        }
        Protocol::Pvh => info.write_pvh(mem)?,
    }

    let entry = EntryState::new(kernel.protocol, kernel.entry);
    entry
        .write_tables(mem)
        .map_err(write_error("the GDT and page tables"))?;
    Ok(BootPlan {
        protocol: kernel.protocol,
        entry,
        kernel_end: kernel.end,
        initrd: initrd_extent,
    })
}

#[cfg(test)]
#[path = "lib_test.rs"]
mod tests;
