//! The boot parameters: the zero page (Linux protocol) or the start info (PVH).
//!
//! [`crate::load_with`] writes them last, when everything that they point at is in place.

use linux_loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams, Error as ConfiguratorError};
use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::GuestAddress;

use crate::layout;
use crate::memory_map::Entry;
use crate::memory_map::GuestMemory;

/// "Undefined loader" (Documentation/x86/boot.rst, `type_of_loader`).
const LOADER_UNDEFINED: u8 = 0xff;
/// `vid_mode`: leave the mode as it is.
const VIDEO_NORMAL: u16 = 0xffff;
const PVH_MAGIC: u32 = 0x336e_c578;
/// PVH version 1 has the memory map.
const PVH_VERSION: u32 = 1;

/// Largest memory map: the size in `boot_params`, and the limit of Linux for PVH. A machine has four entries.
const MAX_MEMORY_MAP: usize = 128;
const _: () = assert!(
    layout::PVH_MEMORY_MAP + (MAX_MEMORY_MAP * size_of::<hvm_memmap_table_entry>()) as u64
        <= layout::ZERO_PAGE
);

/// The parameters of both protocols.
#[derive(Debug)]
pub(crate) struct BootInfo {
    pub(crate) memory_map: Vec<Entry>,
    /// Address and bytes of the initrd.
    pub(crate) initrd: Option<(u64, u64)>,
}

impl BootInfo {
    /// Writes `boot_params` with the kernel's setup header.
    pub(crate) fn write_zero_page(
        &self,
        mem: &GuestMemory,
        header: setup_header,
    ) -> Result<(), ConfiguratorError> {
        let (initrd, initrd_len) = self.initrd.unwrap_or_default();
        let mut params = boot_params {
            hdr: setup_header {
                type_of_loader: LOADER_UNDEFINED,
                vid_mode: VIDEO_NORMAL,
                cmd_line_ptr: low_half(layout::CMDLINE_START),
                ramdisk_image: low_half(initrd),
                ramdisk_size: low_half(initrd_len),
                // A pointer to further data. The value in the file would be invalid.
                setup_data: 0,
                ..header
            },
            ext_ramdisk_image: low_half(initrd >> 32),
            ext_ramdisk_size: low_half(initrd_len >> 32),
            acpi_rsdp_addr: layout::ACPI_START,
            ..boot_params::default()
        };
        let mut table = params.e820_table;
        for (slot, entry) in table.iter_mut().zip(&self.memory_map) {
            *slot = boot_e820_entry {
                addr: entry.start,
                size: entry.len,
                r#type: entry.usage as u32,
            };
            params.e820_entries += 1;
        }
        params.e820_table = table;
        LinuxBootConfigurator::write_bootparams(
            &BootParams::new(&params, GuestAddress(layout::ZERO_PAGE)),
            mem,
        )
    }

    /// Writes `hvm_start_info`, the module list and the memory map.
    pub(crate) fn write_pvh(&self, mem: &GuestMemory) -> Result<(), ConfiguratorError> {
        let memory_map: Vec<_> = self
            .memory_map
            .iter()
            .take(MAX_MEMORY_MAP)
            .map(|entry| hvm_memmap_table_entry {
                addr: entry.start,
                size: entry.len,
                type_: entry.usage as u32,
                reserved: 0,
            })
            .collect();
        let modules: Vec<_> = self
            .initrd
            .iter()
            .map(|&(paddr, size)| hvm_modlist_entry {
                paddr,
                size,
                cmdline_paddr: 0,
                reserved: 0,
            })
            .collect();
        let start_info = hvm_start_info {
            magic: PVH_MAGIC,
            version: PVH_VERSION,
            flags: 0,
            nr_modules: u32::from(self.initrd.is_some()),
            modlist_paddr: if self.initrd.is_some() {
                layout::PVH_MODULE_LIST
            } else {
                0
            },
            cmdline_paddr: layout::CMDLINE_START,
            rsdp_paddr: layout::ACPI_START,
            memmap_paddr: layout::PVH_MEMORY_MAP,
            memmap_entries: u32::try_from(memory_map.len()).unwrap_or(u32::MAX),
            reserved: 0,
        };
        let mut params = BootParams::new(&start_info, GuestAddress(layout::PVH_START_INFO));
        params.set_sections(&memory_map, GuestAddress(layout::PVH_MEMORY_MAP));
        params.set_modules(&modules, GuestAddress(layout::PVH_MODULE_LIST));
        PvhBootConfigurator::write_bootparams(&params, mem)
    }
}

/// Returns the low 32 bits, for fields that are split in halves or whose value is below 4 GiB by construction.
fn low_half(value: u64) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the other half is a field of its own"
    )]
    let low = value as u32;
    low
}

#[cfg(test)]
#[path = "boot_info_test.rs"]
mod tests;
