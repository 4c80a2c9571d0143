//! The buses of a machine.

use devices::bus::Bus;

/// The buses a vCPU's accesses go to.
#[derive(Debug, Default)]
pub struct Buses {
    /// I/O ports.
    pub port: Bus,
    /// Guest-physical addresses without memory.
    pub memory: Bus,
}
