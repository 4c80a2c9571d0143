//! Tests of the zero page and the PVH start info, read back as the kernel reads them.

use linux_loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use vm_memory::{Bytes, GuestAddress};

use super::*;
use crate::fixtures::{bzimage, elf, load_all, memory};

fn u32_at(mem: &GuestMemory, offset: u64) -> u32 {
    mem.read_obj(GuestAddress(layout::ZERO_PAGE + offset))
        .unwrap()
}

fn cmdline(mem: &GuestMemory, address: u64) -> Vec<u8> {
    let mut bytes = vec![0; 14];
    mem.read_slice(&mut bytes, GuestAddress(address)).unwrap();
    bytes
}

#[test]
fn the_zero_page_points_at_everything() {
    let mem = memory(64);
    let plan = load_all(&mem, &bzimage(), Some(&[1; 100]), "console=ttyS0").unwrap();
    let params: boot_params = mem.read_obj(GuestAddress(plan.entry.rsi)).unwrap();
    let (rsdp, hdr) = (params.acpi_rsdp_addr, params.hdr);
    assert_eq!(rsdp, layout::ACPI_START);
    assert_eq!(
        cmdline(&mem, u64::from(u32_at(&mem, 0x228))),
        b"console=ttyS0\0"
    );
    assert_eq!(
        (u32_at(&mem, 0x218), u32_at(&mem, 0x21c)),
        ((64 << 20) - 0x1000, 100)
    );
    assert_eq!(hdr.type_of_loader, 0xff);
    assert_eq!(params.sentinel, 0);
    assert_eq!(params.e820_entries, 3);
    let table = params.e820_table;
    let last = table[2];
    assert_eq!((last.addr, last.size, last.r#type), (1 << 20, 63 << 20, 1));
}

#[test]
fn a_vmlinux_gets_a_header_too() {
    let mem = memory(64);
    load_all(&mem, &elf(false), None, "console=ttyS0").unwrap();
    assert_eq!(u32_at(&mem, 0x202), u32::from_le_bytes(*b"HdrS"));
    assert_eq!(
        cmdline(&mem, u64::from(u32_at(&mem, 0x228))),
        b"console=ttyS0\0"
    );
    assert_eq!(u32_at(&mem, 0x218), 0);
}

#[test]
fn the_start_info_points_at_everything() {
    let mem = memory(64);
    let plan = load_all(&mem, &elf(true), Some(&[1; 100]), "console=ttyS0").unwrap();
    let info: hvm_start_info = mem.read_obj(GuestAddress(plan.entry.rbx)).unwrap();
    assert_eq!(
        (
            info.magic,
            info.version,
            info.nr_modules,
            info.memmap_entries
        ),
        (0x336e_c578, 1, 1, 3)
    );
    assert_eq!(info.rsdp_paddr, layout::ACPI_START);
    assert_eq!(cmdline(&mem, info.cmdline_paddr), b"console=ttyS0\0");
    let module: hvm_modlist_entry = mem.read_obj(GuestAddress(info.modlist_paddr)).unwrap();
    assert_eq!((module.paddr, module.size), ((64 << 20) - 0x1000, 100));
    let entry: hvm_memmap_table_entry = mem.read_obj(GuestAddress(info.memmap_paddr + 48)).unwrap();
    assert_eq!(
        (entry.addr, entry.size, entry.type_),
        (1 << 20, 63 << 20, 1)
    );
}
