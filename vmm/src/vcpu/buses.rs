//! The buses of a machine.

use devices::bus::Bus;

/// The buses that serve the accesses of vCPUs.
#[derive(Debug, Default)]
pub struct Buses {
    /// The bus of I/O ports.
    pub port: Bus,
    /// The bus of guest-physical addresses without memory.
    pub memory: Bus,
}
