//! Devices at fixed ports and addresses that are not virtio: serial port, keyboard controller, power management,
//! pvpanic, VMGenID and the PCI host bridge.
//!
//! The monitor's machine builder creates them and puts them on the [`crate::bus`]. No device here has a queue or an
//! event loop; the devices of [`crate::virtio`] do.

pub mod guest_event;
pub mod i8042;
pub mod pci_host;
pub mod power;
pub mod pvpanic;
pub mod serial;
pub mod state;
pub mod vmgenid;
