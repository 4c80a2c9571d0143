//! The guest-physical address map and the port map: every address that the boot code writes, the monitor decodes, or a
//! table tells the guest.
//!
//! This crate and the monitor's machine builder use it. It holds numbers only and touches no guest memory.
//!
//! ```text
//! 0x1_0000_0000 ┌────────────────────────────────┐ + everything beyond 3 GiB of RAM, upwards
//!               │ RAM, high part                 │
//! 0x1_0000_0000 ├────────────────────────────────┤
//!   0xfffb_d000 │ KVM: task-state pages (3)      │ Intel hosts only; never decoded, never RAM
//!   0xfffb_c000 │ KVM: identity-map page (1)     │
//!               │ …                              │
//!   0xfee0_0000 │ local APIC (in kernel)         │
//!   0xfec0_0000 │ I/O APIC (in kernel), 24 pins  │
//!               │ …                              │
//!   0xc000_1000 │ virtio-mmio window 0, 1, … 17  │ 4 KiB each; window i interrupts on GSI 5 + i
//!   0xc000_0000 │ boot-timer page                │ MMIO gap: 3 GiB to 4 GiB, no RAM
//!   0xc000_0000 ├────────────────────────────────┤
//!               │ initrd, as high as it may be   │
//!               │ …                              │
//!               │ RAM, low part                  │
//!   0x0010_0000 │ kernel (an ELF says where)     │
//!   0x0010_0000 ├────────────────────────────────┤
//!   0x000f_fff0 │ reset vector                   │ 16-bit code that writes the reset register
//!   0x000f_f000 │ name of the snapshot           │ 16 bytes, written when the guest is saved
//!   0x000e_f000 │ clock page (VMClock)           │ reserved in the memory map, like the next two
//!   0x000e_e000 │ generation id (VMGenID)        │
//!   0x000e_0000 │ RSDP, then the ACPI tables     │
//!   0x000a_0000 │ (RAM, but in no memory map)    │ where a PC has VGA and option ROMs: reads as zero
//!   0x0009_fc00 │ end of conventional memory     │
//!               │ …                              │
//!   0x0002_0000 │ kernel command line            │ at most 64 KiB
//!   0x0000_9000 │ page tables: PML4, PDPT, 4 PDs │ identity map of the first 4 GiB
//!   0x0000_8ff0 │ initial stack, downwards       │
//!   0x0000_7000 │ Linux boot_params, "zero page" │ Linux 64-bit protocol
//!   0x0000_6000 │ hvm_start_info, modules, map   │ PVH protocol
//!   0x0000_0500 │ GDT                            │
//!   0x0000_0000 └────────────────────────────────┘ real-mode vectors and BIOS data, left zero
//! ```

/// Bytes in a page of guest memory.
pub const PAGE_SIZE: u64 = 0x1000;

/// The global descriptor table the entry state points at.
pub const GDT_START: u64 = 0x500;

/// `hvm_start_info` of the PVH protocol; the module list and the memory map follow in the same page.
pub const PVH_START_INFO: u64 = 0x6000;

/// The PVH module list (one entry: the initrd).
pub const PVH_MODULE_LIST: u64 = 0x6040;

/// The PVH memory map, up to the end of the page.
pub const PVH_MEMORY_MAP: u64 = 0x6080;

/// `boot_params` of the Linux protocol, one page.
pub const ZERO_PAGE: u64 = 0x7000;

/// Initial stack pointer, 16-byte aligned. One page below it is the stack. Linux sets its own; a small payload may use
/// this one.
pub const BOOT_STACK: u64 = 0x8ff0;

/// Root of the identity page tables; the page-directory-pointer table and four page directories follow.
pub const PAGE_TABLES: u64 = 0x9000;

/// Address of the NUL-terminated command line.
pub const CMDLINE_START: u64 = 0x2_0000;

/// Room for the command line including its NUL, regardless of the kernel's own limit.
pub const CMDLINE_ROOM: u64 = 0x1_0000;

/// End of conventional memory, which is the RAM below 1 MiB in the memory map.
pub const LOW_RAM_END: u64 = 0x9_fc00;

/// The RSDP; the other ACPI tables follow it. Within the BIOS range that old kernels scan.
pub const ACPI_START: u64 = 0xe_0000;

/// End of the room for ACPI tables; the rest up to 1 MiB is reserved with them.
pub const ACPI_END: u64 = 0xe_e000;

/// The VM generation id, 16 bytes (VMGenID), in a page of its own.
pub const GENERATION_ID: u64 = 0xe_e000;

/// The VMClock page, which reports clock disruptions to the guest.
pub const CLOCK_PAGE: u64 = 0xe_f000;

/// Address of the 16-byte id of the snapshot that the memory belongs to. Reserved in the memory map.
pub const SNAPSHOT_ID: u64 = 0xf_f000;

/// Reset vector of a PC in real mode. Linux before 6.3 with hardware-reduced ACPI and without EFI has no other reset than
/// a jump to it (`reboot=bios`).
pub const RESET_VECTOR: u64 = 0xf_fff0;

/// First address a kernel segment may use, and where a relocatable bzImage is put.
pub const HIGH_RAM_START: u64 = 0x10_0000;

/// End of low RAM and start of the MMIO gap.
pub const MMIO_GAP_START: u64 = 0xc000_0000;

/// End of the MMIO gap and start of high RAM.
pub const MMIO_GAP_END: u64 = 0x1_0000_0000;

/// The page of the boot timer (a byte written there marks the end of a guest's boot).
pub const BOOT_TIMER: u64 = 0xc000_0000;

/// The first virtio-mmio window.
pub const VIRTIO_MMIO_START: u64 = 0xc000_1000;

/// Bytes of each virtio-mmio window.
pub const VIRTIO_MMIO_SIZE: u64 = 0x1000;

/// Interrupt of the first virtio-mmio window. Lower ones belong to the timer, the keyboard, events and the serial
/// port.
pub const VIRTIO_MMIO_FIRST_GSI: u32 = 5;

/// Last interrupt of a virtio-mmio window: the last pin but one of KVM's I/O APIC. The last pin is
/// [`GENERATION_GSI`].
pub const VIRTIO_MMIO_LAST_GSI: u32 = 22;

/// Number of virtio-mmio windows: one per interrupt, because none is shared.
pub const VIRTIO_MMIO_COUNT: usize = 18;

/// I/O APIC registers (KVM's in-kernel one is fixed here).
pub const IO_APIC_START: u64 = 0xfec0_0000;

/// Local APIC registers (the architecture's reset value).
pub const LOCAL_APIC_START: u64 = 0xfee0_0000;

/// `KVM_SET_IDENTITY_MAP_ADDR`: one page. This is KVM's default, so the call may be left out.
pub const KVM_IDENTITY_MAP: u64 = 0xfffb_c000;

/// `KVM_SET_TSS_ADDR`: three pages, which hosts with Intel processors need below 4 GiB.
pub const KVM_TSS: u64 = 0xfffb_d000;

/// First port of the serial port COM1 (eight ports).
pub const COM1_PORT: u16 = 0x3f8;

/// Number of ports of COM1.
pub const COM1_PORTS: u8 = 8;

/// Interrupt of COM1.
pub const COM1_GSI: u32 = 4;

/// Data port of the i8042 keyboard controller.
pub const I8042_DATA_PORT: u16 = 0x60;

/// Command and status port of the i8042 keyboard controller.
pub const I8042_COMMAND_PORT: u16 = 0x64;

/// Interrupt of the keyboard.
pub const I8042_GSI: u32 = 1;

/// First interrupt of the Generic Event Device, raised when the power button is pressed.
pub const EVENT_GSI: u32 = 3;

/// Second interrupt of the Generic Event Device, raised after a restore or fork. It is not an ISA interrupt, because
/// Linux never gives the two free ones (2 and 13) to a driver.
pub const GENERATION_GSI: u32 = 23;

/// The pvpanic port: the guest writes its panic event here.
pub const PVPANIC_PORT: u16 = 0x505;

/// ACPI sleep control register. Writing [`SLEEP_CONTROL_S5`] powers the machine off.
pub const SLEEP_CONTROL_PORT: u16 = 0x600;

/// ACPI sleep status register. Reads as zero; writes have no effect.
pub const SLEEP_STATUS_PORT: u16 = 0x601;

/// ACPI reset register. Writing [`RESET_VALUE`] resets the machine.
pub const RESET_PORT: u16 = 0x602;

/// SLP_TYP of the `\_S5` package.
pub const SLEEP_TYPE_S5: u8 = 5;

/// Value that powers off through [`SLEEP_CONTROL_PORT`]: SLP_EN and SLP_TYP 5 (ACPI 6.5, table 4.18).
pub const SLEEP_CONTROL_S5: u8 = 1 << 5 | SLEEP_TYPE_S5 << 2;

/// Value that resets through [`RESET_PORT`]: the FADT's RESET_VALUE.
pub const RESET_VALUE: u8 = 1;

/// Exit port of a payload. Writing an exit status ends the machine.
pub const PAYLOAD_EXIT_PORT: u16 = 0xf4;

/// A virtio-mmio window: the place of one device's registers, and its interrupt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioMmioWindow {
    /// First guest-physical address; page-aligned, below 4 GiB.
    pub base: u64,
    /// Bytes of the window.
    pub len: u64,
    /// I/O APIC pin, edge-triggered, not shared.
    pub gsi: u32,
}

/// Returns the virtio-mmio window `index`, or `None` beyond [`VIRTIO_MMIO_COUNT`].
#[must_use]
pub fn virtio_mmio_window(index: usize) -> Option<VirtioMmioWindow> {
    if index >= VIRTIO_MMIO_COUNT {
        return None;
    }
    let index = u32::try_from(index).ok()?;
    Some(VirtioMmioWindow {
        base: VIRTIO_MMIO_START + u64::from(index) * VIRTIO_MMIO_SIZE,
        len: VIRTIO_MMIO_SIZE,
        gsi: VIRTIO_MMIO_FIRST_GSI + index,
    })
}

/// Returns the ranges of `mem_bytes` of RAM as `(base, length)` in bytes, ascending. RAM beyond the MMIO gap continues
/// at 4 GiB.
#[must_use]
pub fn ram_ranges(mem_bytes: u64) -> Vec<(u64, u64)> {
    let low = mem_bytes.min(MMIO_GAP_START);
    let mut ranges = Vec::with_capacity(2);
    if low > 0 {
        ranges.push((0, low));
    }
    if mem_bytes > low {
        ranges.push((MMIO_GAP_END, mem_bytes - low));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_skips_the_mmio_gap() {
        const GIB: u64 = 1 << 30;
        assert_eq!(ram_ranges(0), []);
        assert_eq!(ram_ranges(128 << 20), [(0, 128 << 20)]);
        assert_eq!(ram_ranges(3 * GIB), [(0, 3 * GIB)]);
        assert_eq!(ram_ranges(4 * GIB), [(0, 3 * GIB), (4 * GIB, GIB)]);
    }

    #[test]
    fn windows_end_with_the_last_interrupt() {
        let first = virtio_mmio_window(0).unwrap();
        assert_eq!((first.base, first.len, first.gsi), (0xc000_1000, 0x1000, 5));
        let last = virtio_mmio_window(VIRTIO_MMIO_COUNT - 1).unwrap();
        assert_eq!(last.gsi, VIRTIO_MMIO_LAST_GSI);
        assert!(last.base + last.len <= IO_APIC_START);
        assert_eq!(virtio_mmio_window(VIRTIO_MMIO_COUNT), None);
    }

    #[test]
    fn power_off_is_a_write_of_0x34() {
        assert_eq!(SLEEP_CONTROL_S5, 0x34);
    }
}
