//! The initial state of a vCPU as plain data: registers, segments, GDT and identity page tables; and the boot parameters.
//!
//! [`crate::load`] calls it. The monitor copies an [`EntryState`] into `KVM_SET_REGS` and `KVM_SET_SREGS` of the boot
//! processor. This room knows no KVM type, and sets neither MSRs nor CPUID nor the local APIC.
//!
//! There are two protocols: Linux 64-bit (Documentation/x86/boot.rst, "64-bit Boot Protocol": long mode, paging on, `rsi` at
//! the zero page) and PVH (Xen docs/misc/pvh.pandoc, "x86/HVM direct boot ABI": 32-bit protected mode, paging off,
//! `ebx` at the start info).

pub(crate) mod boot_info;

use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

use crate::layout;
use crate::memory_map::GuestMemory;

/// Real-mode code at [`layout::RESET_VECTOR`] that resets the machine.
pub(crate) const RESET_CODE: [u8; 9] = {
    let [low, high] = layout::RESET_PORT.to_le_bytes();
    [
        0xba,
        low,
        high, // mov dx, RESET_PORT
        0xb0,
        layout::RESET_VALUE, // mov al, RESET_VALUE
        0xee,                // out dx, al
        0xf4,                // hlt
        0xeb,
        0xfd, // jmp to the hlt
    ]
};

/// The boot protocol between monitor and kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// 64-bit long mode with paging, `rsi` = zero page.
    Linux64,
    /// 32-bit protected mode without paging, `ebx` = `hvm_start_info`.
    Pvh,
}

/// A segment register with its hidden part. The fields are those of `kvm_segment`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Segment {
    /// Base address.
    pub base: u64,
    /// Limit in bytes, expanded (granularity already applied).
    pub limit: u32,
    /// Selector: offset into the GDT.
    pub selector: u16,
    /// Type field, 4 bits (Intel SDM vol. 3, tables 3-1 and 3-2).
    pub type_: u8,
    /// Present.
    pub present: u8,
    /// Descriptor privilege level, 0 to 3.
    pub dpl: u8,
    /// Default operation size: 1 for 32-bit.
    pub db: u8,
    /// 1 for code or data, 0 for a system segment.
    pub s: u8,
    /// 1 for 64-bit code.
    pub l: u8,
    /// Granularity: 1 when the descriptor counts the limit in pages.
    pub g: u8,
    /// Available to software.
    pub avl: u8,
    /// 1 when the register holds a null selector.
    pub unusable: u8,
}

/// A descriptor-table register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    /// Guest-physical (identity-mapped) base address.
    pub base: u64,
    /// Offset of the last byte.
    pub limit: u16,
}

/// The registers of the boot processor. General registers that are not listed are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntryState {
    /// First instruction, guest-physical.
    pub rip: u64,
    /// Initial stack.
    pub rsp: u64,
    /// Frame pointer, equal to `rsp`.
    pub rbp: u64,
    /// Zero page (Linux), else 0.
    pub rsi: u64,
    /// Start info (PVH), else 0.
    pub rbx: u64,
    /// Flags: only the always-set bit, so interrupts are off.
    pub rflags: u64,
    /// Control register 0.
    pub cr0: u64,
    /// Root of the page tables, 0 without paging.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// Extended feature enable register.
    pub efer: u64,
    /// Global descriptor table.
    pub gdt: DescriptorTable,
    /// Interrupt descriptor table. It is empty, so a fault before the kernel sets its own resets the machine.
    pub idt: DescriptorTable,
    /// Code segment.
    pub cs: Segment,
    /// Data segment.
    pub ds: Segment,
    /// Extra segment.
    pub es: Segment,
    /// F segment.
    pub fs: Segment,
    /// G segment.
    pub gs: Segment,
    /// Stack segment.
    pub ss: Segment,
    /// Task register.
    pub tr: Segment,
}

/// Selectors that the Linux protocol requires: `__BOOT_CS` and `__BOOT_DS`.
const CODE_SELECTOR: u16 = 0x10;
const DATA_SELECTOR: u16 = 0x18;
/// A 64-bit task-state descriptor takes two GDT entries.
const TSS_SELECTOR: u16 = 0x20;
const GDT_ENTRIES: usize = 6;

const RFLAGS_RESERVED: u64 = 1 << 1;
const CR0_PE: u64 = 1 << 0;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;

const PTE_PRESENT_WRITABLE: u64 = 0b11;
const PDE_2MIB_PAGE: u64 = 1 << 7;
const PAGE_DIRECTORIES: u64 = 4;
const ENTRIES_PER_TABLE: u64 = 512;

impl EntryState {
    /// Returns the state for `protocol` with the entry point `entry`.
    #[must_use]
    pub(crate) fn new(protocol: Protocol, entry: u64) -> Self {
        let data = data_segment();
        let common = Self {
            rip: entry,
            rsp: layout::BOOT_STACK,
            rbp: layout::BOOT_STACK,
            rsi: 0,
            rbx: 0,
            rflags: RFLAGS_RESERVED,
            cr0: CR0_PE | CR0_ET,
            cr3: 0,
            cr4: 0,
            efer: 0,
            gdt: DescriptorTable {
                base: layout::GDT_START,
                limit: gdt_limit(),
            },
            idt: DescriptorTable::default(),
            cs: code_segment(protocol),
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            tr: task_segment(),
        };
        match protocol {
            Protocol::Linux64 => Self {
                rsi: layout::ZERO_PAGE,
                cr0: common.cr0 | CR0_PG,
                cr3: layout::PAGE_TABLES,
                cr4: CR4_PAE,
                efer: EFER_LME | EFER_LMA,
                ..common
            },
            Protocol::Pvh => Self {
                rbx: layout::PVH_START_INFO,
                ..common
            },
        }
    }

    /// Writes the GDT and, if paging is on, the page tables of this state.
    pub(crate) fn write_tables(&self, mem: &GuestMemory) -> Result<(), GuestMemoryError> {
        let mut gdt = Vec::with_capacity(GDT_ENTRIES * 8);
        for descriptor in [
            0,
            0,
            descriptor(&self.cs),
            descriptor(&self.ds),
            descriptor(&self.tr),
            0,
        ] {
            gdt.extend_from_slice(&descriptor.to_le_bytes());
        }
        mem.write_slice(&gdt, GuestAddress(self.gdt.base))?;
        if self.cr3 != 0 {
            mem.write_slice(&identity_page_tables(self.cr3), GuestAddress(self.cr3))?;
        }
        Ok(())
    }
}

const fn gdt_limit() -> u16 {
    // Six entries of eight bytes: 47 fits.
    #[expect(clippy::cast_possible_truncation, reason = "a small constant")]
    let limit = (GDT_ENTRIES * 8 - 1) as u16;
    limit
}

fn code_segment(protocol: Protocol) -> Segment {
    let long = u8::from(protocol == Protocol::Linux64);
    Segment {
        limit: u32::MAX,
        selector: CODE_SELECTOR,
        type_: 0b1011, // execute, read, accessed
        present: 1,
        s: 1,
        l: long,
        db: 1 - long,
        g: 1,
        ..Segment::default()
    }
}

fn data_segment() -> Segment {
    Segment {
        limit: u32::MAX,
        selector: DATA_SELECTOR,
        type_: 0b0011, // read, write, accessed
        present: 1,
        s: 1,
        db: 1,
        g: 1,
        ..Segment::default()
    }
}

fn task_segment() -> Segment {
    Segment {
        limit: 0x67, // the size of a task-state segment
        selector: TSS_SELECTOR,
        type_: 0b1011, // busy task state, which VM entry demands
        present: 1,
        ..Segment::default()
    }
}

/// The GDT entry of a segment whose base lies below 4 GiB (Intel SDM vol. 3, figure 3-8).
fn descriptor(segment: &Segment) -> u64 {
    let limit = u64::from(if segment.g == 1 {
        segment.limit >> 12
    } else {
        segment.limit
    });
    let access =
        u64::from(segment.type_ | segment.s << 4 | segment.dpl << 5 | segment.present << 7);
    let flags = u64::from(segment.avl | segment.l << 1 | segment.db << 2 | segment.g << 3);
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | access << 40
        | (limit >> 16 & 0xf) << 48
        | flags << 52
        | (segment.base >> 24 & 0xff) << 56
}

/// PML4, PDPT and four page directories: an identity map of the first 4 GiB in 2-MiB pages.
///
/// The protocol asks only for kernel, zero page and command line; the rest costs four pages and lets a small
/// payload reach its devices.
fn identity_page_tables(root: u64) -> Vec<u8> {
    let pdpt = root + layout::PAGE_SIZE;
    let directory = |index: u64| pdpt + layout::PAGE_SIZE * (1 + index);
    let pml4_entries = std::iter::once(pdpt | PTE_PRESENT_WRITABLE);
    let pdpt_entries = (0..PAGE_DIRECTORIES).map(|index| directory(index) | PTE_PRESENT_WRITABLE);
    let pages = (0..PAGE_DIRECTORIES * ENTRIES_PER_TABLE)
        .map(|page| page << 21 | PDE_2MIB_PAGE | PTE_PRESENT_WRITABLE);
    let pad = |used: u64| (used..ENTRIES_PER_TABLE).map(|_| 0u64);
    pml4_entries
        .chain(pad(1))
        .chain(pdpt_entries)
        .chain(pad(PAGE_DIRECTORIES))
        .chain(pages)
        .flat_map(u64::to_le_bytes)
        .collect()
}

#[cfg(test)]
#[path = "x86_64_test.rs"]
mod tests;
