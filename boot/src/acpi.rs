//! The ACPI tables, which tell a stock kernel about processors, interrupts, power-off and every device.
//!
//! [`crate::load_with`] puts [`Tables::bytes`] at [`layout::ACPI_START`]. The tables only describe; the monitor has the
//! devices. Written against ACPI 6.5.
//!
//! The machine is *hardware-reduced* (section 4.1): it has no PM timer, no SCI and no fixed power button, and Linux then
//! touches neither the 8259 interrupt controllers nor the 8254 timer. Devices of a PC that this machine lacks are declared
//! absent (CMOS clock, VGA, and the keyboard controller if it is disabled), because each probe of a kernel costs VM exits.

use acpi_tables::Aml;
use acpi_tables::aml::{self, Path};
use acpi_tables::fadt::{FADT, FADTBuilder, Flags};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use thiserror::Error;

use crate::layout::{self, VirtioMmioWindow};

const OEM_ID: [u8; 6] = *b"BANTAM";
const OEM_TABLE_ID: [u8; 8] = *b"MICROVM ";
const OEM_REVISION: u32 = 1;

/// Alignment of each table in memory.
const TABLE_ALIGN: u64 = 16;
/// Revision 2 makes integers in AML 64 bits wide.
const DSDT_REVISION: u8 = 2;
const MADT_REVISION: u8 = 6;

/// IAPC_BOOT_ARCH (table 5.11). LEGACY_DEVICES stays off: AML names every device.
const BOOT_ARCH_8042: u16 = 1 << 1;
const BOOT_ARCH_VGA_NOT_PRESENT: u16 = 1 << 2;
const BOOT_ARCH_CMOS_RTC_NOT_PRESENT: u16 = 1 << 5;

/// Devices that the event device notifies.
const POWER_BUTTON: &str = "PWRB";
const GENERATION_ID: &str = "VGEN";
const CLOCK: &str = "VCLK";

/// APIC ids above this need x2APIC entries in the MADT.
const MAX_VCPUS: u8 = 254;

/// The reason why the machine cannot be described.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum AcpiError {
    /// No processor, or more than the tables can name.
    #[error("{0} processors: 1 to {MAX_VCPUS} can be described")]
    Vcpus(u8),
    /// A window is outside the reach of 32-bit descriptors.
    #[error("the virtio-mmio window at {base:#x} with {len:#x} bytes is not below 4 GiB")]
    Window {
        /// First address.
        base: u64,
        /// Bytes.
        len: u64,
    },
    /// More windows than there are interrupts.
    #[error("{0} virtio-mmio devices: at most {max} can be described", max = layout::VIRTIO_MMIO_COUNT)]
    TooManyDevices(usize),
}

/// All tables, linked and checksummed, for [`layout::ACPI_START`].
#[derive(Debug)]
pub struct Tables {
    bytes: Vec<u8>,
}

impl Tables {
    /// Describes a machine with `vcpus` processors and these devices.
    ///
    /// # Errors
    ///
    /// There are too many processors or devices, or a window is not below 4 GiB.
    pub fn new(vcpus: u8, devices: &[VirtioMmioWindow], i8042: bool) -> Result<Self, AcpiError> {
        if vcpus == 0 || vcpus > MAX_VCPUS {
            return Err(AcpiError::Vcpus(vcpus));
        }
        if devices.len() > layout::VIRTIO_MMIO_COUNT {
            return Err(AcpiError::TooManyDevices(devices.len()));
        }
        // The RSDP comes first, where old kernels look for it. It is filled in last.
        let mut blob = vec![0; Rsdp::len()];
        let dsdt = append(&mut blob, &dsdt(devices, i8042)?);
        let fadt = append(&mut blob, &bytes_of(&fadt(dsdt, i8042)));
        let madt = append(&mut blob, madt(vcpus).as_slice());
        let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
        xsdt.add_entry(fadt);
        xsdt.add_entry(madt);
        let xsdt = append(&mut blob, &bytes_of(&xsdt));
        let rsdp = bytes_of(&Rsdp::new(OEM_ID, xsdt));
        for (to, from) in blob.iter_mut().zip(rsdp) {
            *to = from;
        }
        Ok(Self { bytes: blob })
    }

    /// Returns the tables; the first is the RSDP.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Appends a table at the next aligned address, and returns that guest-physical address.
fn append(blob: &mut Vec<u8>, table: &[u8]) -> u64 {
    while !(blob.len() as u64).is_multiple_of(TABLE_ALIGN) {
        blob.push(0);
    }
    let address = layout::ACPI_START + blob.len() as u64;
    blob.extend_from_slice(table);
    address
}

fn bytes_of(table: &dyn Aml) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.to_aml_bytes(&mut bytes);
    bytes
}

fn register(port: u16) -> GAS {
    GAS::new(
        AddressSpace::SystemIo,
        8,
        0,
        AccessSize::ByteAccess,
        u64::from(port),
    )
}

/// The FADT: power-off and reset registers, and absent hardware.
fn fadt(dsdt: u64, i8042: bool) -> FADT {
    let keyboard = if i8042 { BOOT_ARCH_8042 } else { 0 };
    let mut fadt = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton) // set: no fixed-hardware power button
        .flag(Flags::SlpButton); // set: no fixed-hardware sleep button
    fadt.iapc_boot_arch =
        (keyboard | BOOT_ARCH_VGA_NOT_PRESENT | BOOT_ARCH_CMOS_RTC_NOT_PRESENT).into();
    fadt.reset_reg = register(layout::RESET_PORT);
    fadt.reset_value = layout::RESET_VALUE;
    fadt.sleep_control_reg = register(layout::SLEEP_CONTROL_PORT);
    fadt.sleep_status_reg = register(layout::SLEEP_STATUS_PORT);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"BANTAM\0\0").into();
    fadt.finalize()
}

/// Interrupt controllers and processors (section 5.2.12).
///
/// There are no interrupt source overrides: KVM routes interrupt n to pin n, and those in the ISA range are edge-triggered
/// and active-high, like ISA's. PCAT_COMPAT is off, so that no kernel looks for an 8259.
fn madt(vcpus: u8) -> Sdt {
    const LOCAL_APIC_ENABLED: u32 = 1;
    const ALL_PROCESSORS: u8 = 0xff;
    const LINT1: u8 = 1;

    let mut body = Vec::new();
    body.extend_from_slice(&address32(layout::LOCAL_APIC_START).to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes()); // flags
    for id in 0..vcpus {
        body.extend_from_slice(&[0, 8, id, id]); // processor local APIC: UID and APIC id
        body.extend_from_slice(&LOCAL_APIC_ENABLED.to_le_bytes());
    }
    body.extend_from_slice(&[1, 12, 0, 0]); // I/O APIC: id 0
    body.extend_from_slice(&address32(layout::IO_APIC_START).to_le_bytes());
    body.extend_from_slice(&0u32.to_le_bytes()); // its first GSI
    body.extend_from_slice(&[4, 6, ALL_PROCESSORS, 0, 0, LINT1]); // local APIC NMI, as the bus defines it

    let mut madt = Sdt::new(
        *b"APIC",
        36,
        MADT_REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    madt.append_slice(&body);
    madt
}

/// The DSDT: power-off and the devices.
fn dsdt(devices: &[VirtioMmioWindow], i8042: bool) -> Result<Vec<u8>, AcpiError> {
    let mut body = Vec::new();
    let s5 = aml::Package::new(vec![&layout::SLEEP_TYPE_S5, &aml::ZERO]);
    aml::Name::new("_S5_".into(), &s5).to_aml_bytes(&mut body);

    let mut children = Vec::new();
    serial_port(&mut children);
    if i8042 {
        keyboard_controller(&mut children);
    }
    panic_device(&mut children);
    power_button(&mut children);
    generation(&mut children);
    events(&mut children);
    for (index, window) in (0..).zip(devices) {
        virtio_mmio(&mut children, index, window)?;
    }
    body.extend_from_slice(&aml::Scope::raw("_SB_".into(), children));

    let mut table = Sdt::new(
        *b"DSDT",
        36,
        DSDT_REVISION,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    table.append_slice(&body);
    Ok(table.as_slice().to_vec())
}

/// An edge-triggered, active-high, unshared interrupt.
fn interrupt(gsi: u32) -> aml::Interrupt {
    aml::Interrupt::new(true, true, false, false, gsi)
}

fn ports(first: u16, count: u8) -> aml::IO {
    aml::IO::new(first, first, 1, count)
}

fn serial_port(scope: &mut Vec<u8>) {
    aml::Device::new(
        "COM1".into(),
        vec![
            &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0501")),
            &aml::Name::new("_UID".into(), &aml::ZERO),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![
                    &ports(layout::COM1_PORT, layout::COM1_PORTS),
                    &interrupt(layout::COM1_GSI),
                ]),
            ),
        ],
    )
    .to_aml_bytes(scope);
}

/// The keyboard only. Without a PNP0F13 beside it, Linux does not look for a mouse.
fn keyboard_controller(scope: &mut Vec<u8>) {
    aml::Device::new(
        "KBD_".into(),
        vec![
            &aml::Name::new("_HID".into(), &aml::EISAName::new("PNP0303")),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![
                    &ports(layout::I8042_DATA_PORT, 1),
                    &ports(layout::I8042_COMMAND_PORT, 1),
                    &interrupt(layout::I8042_GSI),
                ]),
            ),
        ],
    )
    .to_aml_bytes(scope);
}

fn panic_device(scope: &mut Vec<u8>) {
    aml::Device::new(
        "PEVT".into(),
        vec![
            &aml::Name::new("_HID".into(), &"QEMU0001"),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![&ports(layout::PVPANIC_PORT, 1)]),
            ),
        ],
    )
    .to_aml_bytes(scope);
}

fn power_button(scope: &mut Vec<u8>) {
    aml::Device::new(
        POWER_BUTTON.into(),
        vec![&aml::Name::new(
            "_HID".into(),
            &aml::EISAName::new("PNP0C0C"),
        )],
    )
    .to_aml_bytes(scope);
}

/// VMGenID ("Virtual Machine Generation ID", Microsoft, 2012) and VMClock (UAPI.13), which notify a restored or forked
/// guest. Linux finds VMGenID by its compatible ids and VMClock by the hardware id of its first implementation.
fn generation(scope: &mut Vec<u8>) {
    let [low, high] = [layout::GENERATION_ID, layout::GENERATION_ID >> 32];
    let half = u64::from(u32::MAX);
    aml::Device::new(
        GENERATION_ID.into(),
        vec![
            &aml::Name::new("_HID".into(), &"BNTM0001"),
            &aml::Name::new(
                "_CID".into(),
                &aml::Package::new(vec![&"VM_Gen_Counter", &"VMGENCTR"]),
            ),
            &aml::Name::new("_DDN".into(), &"VM_Gen_Counter"),
            &aml::Name::new(
                "ADDR".into(),
                &aml::Package::new(vec![&(low & half), &(high & half)]),
            ),
        ],
    )
    .to_aml_bytes(scope);
    aml::Device::new(
        CLOCK.into(),
        vec![
            &aml::Name::new("_HID".into(), &"AMZNC10C"),
            &aml::Name::new("_CID".into(), &"VMCLOCK"),
            &aml::Name::new("_DDN".into(), &"VMCLOCK"),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![&aml::Memory32Fixed::new(
                    false,
                    address32(layout::CLOCK_PAGE),
                    address32(layout::PAGE_SIZE),
                )]),
            ),
        ],
    )
    .to_aml_bytes(scope);
}

/// The Generic Event Device (section 5.6.9), the only way to notify the guest without fixed hardware.
fn events(scope: &mut Vec<u8>) {
    // Table 5.184: the button was pressed. For the other devices 0x80 means: read your state again.
    let notification = 0x80_u8;
    let [button, id, clock] = [POWER_BUTTON, GENERATION_ID, CLOCK].map(Path::new);
    aml::Device::new(
        "GED_".into(),
        vec![
            &aml::Name::new("_HID".into(), &"ACPI0013"),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![
                    &interrupt(layout::EVENT_GSI),
                    &interrupt(layout::GENERATION_GSI),
                ]),
            ),
            // The argument is the interrupt.
            &aml::Method::new(
                "_EVT".into(),
                1,
                true,
                vec![
                    &aml::If::new(
                        &aml::Equal::new(&aml::Arg(0), &layout::EVENT_GSI),
                        vec![&aml::Notify::new(&button, &notification)],
                    ),
                    &aml::If::new(
                        &aml::Equal::new(&aml::Arg(0), &layout::GENERATION_GSI),
                        vec![
                            &aml::Notify::new(&id, &notification),
                            &aml::Notify::new(&clock, &notification),
                        ],
                    ),
                ],
            ),
        ],
    )
    .to_aml_bytes(scope);
}

fn virtio_mmio(scope: &mut Vec<u8>, index: u8, window: &VirtioMmioWindow) -> Result<(), AcpiError> {
    let VirtioMmioWindow { base, len, gsi } = *window;
    let below_4_gib = base.checked_add(len).is_some_and(|end| end <= 1 << 32);
    let (Ok(base32), Ok(len32), true) = (u32::try_from(base), u32::try_from(len), below_4_gib)
    else {
        return Err(AcpiError::Window { base, len });
    };
    aml::Device::new(
        Path::new(&format!("VR{index:02X}")),
        vec![
            &aml::Name::new("_HID".into(), &"LNRO0005"),
            &aml::Name::new("_UID".into(), &index),
            // Coherent: the devices are software that accesses the same memory.
            &aml::Name::new("_CCA".into(), &aml::ONE),
            &aml::Name::new(
                "_CRS".into(),
                &aml::ResourceTemplate::new(vec![
                    &aml::Memory32Fixed::new(true, base32, len32),
                    &interrupt(gsi),
                ]),
            ),
        ],
    )
    .to_aml_bytes(scope);
    Ok(())
}

/// Returns a layout address below 4 GiB for a 32-bit field.
const fn address32(address: u64) -> u32 {
    assert!(address <= u32::MAX as u64);
    #[expect(clippy::cast_possible_truncation, reason = "just checked")]
    let address = address as u32;
    address
}

#[cfg(test)]
#[path = "acpi_test.rs"]
mod tests;
