//! Tests of the tables as a guest parses them: links, checksums, and the fields Linux acts on.

use super::*;

/// A walk from the RSDP, as a kernel does it.
struct Parsed {
    tables: Tables,
}

impl Parsed {
    fn new(vcpus: u8, devices: usize, i8042: bool) -> Self {
        let windows: Vec<_> = (0..devices)
            .map(|i| layout::virtio_mmio_window(i).unwrap())
            .collect();
        Self {
            tables: Tables::new(vcpus, &windows, i8042).unwrap(),
        }
    }

    fn at(&self, address: u64) -> &[u8] {
        &self.tables.bytes()[usize::try_from(address - layout::ACPI_START).unwrap()..]
    }

    /// The table at `address`, whose checksum holds.
    fn table(&self, address: u64) -> &[u8] {
        assert_eq!(address % TABLE_ALIGN, 0);
        let table = self.at(address);
        let table = &table[..u32_at(table, 4).try_into().unwrap()];
        assert_eq!(sum(table), 0, "{:?}", &table[..4]);
        table
    }

    fn find(&self, signature: &[u8]) -> &[u8] {
        let xsdt = self.table(u64_at(self.at(layout::ACPI_START), 24));
        let entries = xsdt[36..]
            .chunks(8)
            .map(|entry| self.table(u64_at(entry, 0)));
        entries
            .into_iter()
            .find(|table| table.starts_with(signature))
            .unwrap()
    }

    fn dsdt(&self) -> &[u8] {
        self.table(u64_at(self.find(b"FACP"), 140))
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| byte.wrapping_add(sum))
}

fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

fn contains(table: &[u8], needle: &[u8]) -> bool {
    table.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn the_rsdp_comes_first_and_both_its_checksums_hold() {
    let parsed = Parsed::new(1, 0, true);
    let rsdp = &parsed.tables.bytes()[..36];
    assert!(rsdp.starts_with(b"RSD PTR "));
    assert_eq!((rsdp[15], sum(&rsdp[..20]), sum(rsdp)), (2, 0, 0));
}

#[test]
fn the_fadt_has_power_off_and_absent_hardware() {
    let parsed = Parsed::new(1, 0, true);
    let fadt = parsed.find(b"FACP");
    assert_eq!((fadt.len(), fadt[8]), (276, 6));
    let flags = u32_at(fadt, 112);
    assert_eq!(
        flags & (1 << 20 | 1 << 10),
        1 << 20 | 1 << 10,
        "hardware-reduced, with a reset register"
    );
    // Address space 1 (ports), 8 bits, byte access.
    assert_eq!(fadt[116..120], [1, 8, 0, 1]);
    assert_eq!((u64_at(fadt, 120), fadt[128]), (0x602, 1));
    assert_eq!((fadt[244], u64_at(fadt, 248)), (1, 0x600));
    assert_eq!((fadt[256], u64_at(fadt, 260)), (1, 0x601));
    assert_eq!(fadt[109], 0b10_0110, "8042, no VGA, no CMOS clock");
    assert_eq!(Parsed::new(1, 0, false).find(b"FACP")[109], 0b10_0100);
}

#[test]
fn the_madt_has_every_processor() {
    for vcpus in [1, 2, 32, 254] {
        let parsed = Parsed::new(vcpus, 0, true);
        let madt = parsed.find(b"APIC");
        assert_eq!(u32_at(madt, 36), 0xfee0_0000);
        assert_eq!(u32_at(madt, 40), 0, "no PCAT_COMPAT");
        let mut rest = &madt[44..];
        let mut ids = Vec::new();
        let mut others = Vec::new();
        while let [kind, len, ..] = *rest {
            match kind {
                0 => {
                    assert_eq!((rest[2], u32_at(rest, 4)), (rest[3], 1));
                    ids.push(rest[3]);
                }
                _ => others.push(rest[..usize::from(len)].to_vec()),
            }
            rest = &rest[usize::from(len)..];
        }
        assert_eq!(ids, (0..vcpus).collect::<Vec<_>>());
        assert_eq!(others[0], [1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
        assert_eq!(others[1], [4, 6, 0xff, 0, 0, 1]);
    }
}

#[test]
fn the_dsdt_names_every_device() {
    let parsed = Parsed::new(1, layout::VIRTIO_MMIO_COUNT, true);
    let dsdt = parsed.dsdt();
    assert!(contains(dsdt, b"_S5_\x12"));
    // EISA ids: PNP0501 and PNP0303.
    assert!(contains(dsdt, &[0x41, 0xd0, 0x05, 0x01]));
    assert!(contains(dsdt, &[0x41, 0xd0, 0x03, 0x03]));
    assert!(contains(dsdt, b"QEMU0001\0"));
    // PNP0C0C, and the event device whose method notifies it.
    assert!(contains(dsdt, &[0x41, 0xd0, 0x0c, 0x0c]));
    assert!(contains(dsdt, b"ACPI0013\0"));
    let nodes = dsdt
        .windows(8)
        .filter(|window| window == b"LNRO0005")
        .count();
    assert_eq!(nodes, layout::VIRTIO_MMIO_COUNT);
    for index in 0..layout::VIRTIO_MMIO_COUNT {
        let window = layout::virtio_mmio_window(index).unwrap();
        let mut resource = vec![0x86, 9, 0, 1];
        resource.extend(u32::try_from(window.base).unwrap().to_le_bytes());
        resource.extend(0x1000u32.to_le_bytes());
        // Extended interrupt: consumer, edge, active-high, exclusive.
        resource.extend([0x89, 6, 0, 0b0011, 1]);
        resource.extend(window.gsi.to_le_bytes());
        assert!(contains(dsdt, &resource), "window {index}");
    }
    assert!(!contains(
        Parsed::new(1, 0, false).dsdt(),
        &[0x41, 0xd0, 0x03, 0x03]
    ));
}

#[test]
fn each_event_has_its_interrupt_and_its_devices() {
    let parsed = Parsed::new(1, 0, true);
    let dsdt = parsed.dsdt();
    for gsi in [3, 23] {
        assert!(contains(dsdt, &[0x89, 6, 0, 0b0011, 1, gsi, 0, 0, 0]));
    }
    // _EVT, serialized, with one argument: If (Arg0 == 3) { Notify(..) } and If (Arg0 == 23) { .., .. }.
    let method: &[&[u8]] = &[
        b"_EVT\x09",
        &[0xa0, 12, 0x93, 0x68, 0x0a, 3],
        b"\x86PWRB\x0a\x80",
        &[0xa0, 19, 0x93, 0x68, 0x0a, 23],
        b"\x86VGEN\x0a\x80\x86VCLK\x0a\x80",
    ];
    assert!(contains(dsdt, &method.concat()));
}

#[test]
fn a_guest_finds_its_generation_and_its_clock() {
    let parsed = Parsed::new(1, 0, true);
    let dsdt = parsed.dsdt();
    assert!(contains(dsdt, b"_CID\x12"), "a package");
    assert!(contains(dsdt, b"VM_Gen_Counter\0"));
    assert!(contains(dsdt, b"VMGENCTR\0"));
    // A package of two numbers: the low and the high half of the address.
    let address = [
        b"ADDR\x12\x08\x02\x0c".as_slice(),
        &0xe_e000_u32.to_le_bytes(),
        &[0],
    ];
    assert!(contains(dsdt, &address.concat()));
    assert!(contains(dsdt, b"AMZNC10C\0") && contains(dsdt, b"VMCLOCK\0"));
    // Memory of a fixed place, not to be written.
    let clock = [0x86, 9, 0, 0, 0, 0xf0, 0x0e, 0, 0, 0x10, 0, 0];
    assert!(contains(dsdt, &clock));
}

#[test]
fn the_largest_machine_fits() {
    let parsed = Parsed::new(254, layout::VIRTIO_MMIO_COUNT, true);
    let room = layout::ACPI_END - layout::ACPI_START;
    assert!((parsed.tables.bytes().len() as u64) < room / 2);
}

#[test]
fn too_many_devices_or_processors_are_an_error() {
    let high = VirtioMmioWindow {
        base: 1 << 32,
        len: 0x1000,
        gsi: 5,
    };
    let wrapping = VirtioMmioWindow {
        base: u64::MAX,
        len: 0x1000,
        gsi: 5,
    };
    assert_eq!(Tables::new(0, &[], true).unwrap_err(), AcpiError::Vcpus(0));
    assert_eq!(
        Tables::new(255, &[], true).unwrap_err(),
        AcpiError::Vcpus(255)
    );
    assert!(matches!(
        Tables::new(1, &[high], true),
        Err(AcpiError::Window { .. })
    ));
    assert!(matches!(
        Tables::new(1, &[wrapping], true),
        Err(AcpiError::Window { .. })
    ));
    assert_eq!(
        Tables::new(1, &[high; 20], true).unwrap_err(),
        AcpiError::TooManyDevices(20)
    );
}
