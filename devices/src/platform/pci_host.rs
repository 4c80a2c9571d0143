//! A PCI host bridge without devices behind it: the configuration ports 0xcf8 and 0xcfc of mechanism #1 (PCI 3.0,
//! 3.2.2.3.2).
//!
//! A stock kernel that finds no configuration mechanism prints complaints, even with `quiet`, at the cost of about a
//! hundred VM exits. A kernel that finds an empty bus needs a handful.

use crate::bus::BusDevice;
use serde::{Deserialize, Serialize};

/// Offset of CONFIG_ADDRESS.
const ADDRESS: u64 = 0;
/// Offset of CONFIG_DATA.
const DATA: u64 = 4;
/// Bytes of the block.
pub const LEN: u64 = 8;
/// First port of the block.
pub const PORT: u64 = 0xcf8;

/// CONFIG_ADDRESS: accesses to CONFIG_DATA are configuration accesses.
const ENABLE: u32 = 1 << 31;
/// CONFIG_ADDRESS of the register of bus 0, device 0 that holds the class code.
const HOST_BRIDGE_CLASS: u32 = 0x08;
/// Class 0x06 (bridge), subclass 0x00 (host), revision 0.
const HOST_BRIDGE: u32 = 0x0600_0000;

/// The configuration ports.
#[derive(Debug, Default)]
pub struct PciHost {
    address: u32,
}

/// Saved state of the configuration ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PciHostState {
    /// CONFIG_ADDRESS. Any value is valid.
    pub address: u32,
}

impl PciHost {
    /// Saves the device's state.
    pub fn save(&self) -> PciHostState {
        PciHostState {
            address: self.address,
        }
    }

    /// Loads `state`.
    pub fn restore(&mut self, state: &PciHostState) {
        self.address = state.address;
    }

    /// Returns the register that CONFIG_ADDRESS selects.
    fn selected(&self) -> u32 {
        match self.address & !3 {
            address if address == ENABLE | HOST_BRIDGE_CLASS => HOST_BRIDGE,
            // No such device.
            _ => u32::MAX,
        }
    }
}

impl BusDevice for PciHost {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        let (value, from) = match offset {
            // Narrower accesses do not reach CONFIG_ADDRESS.
            ADDRESS if data.len() == 4 => (self.address, 0),
            DATA.. => (self.selected(), offset - DATA),
            _ => (u32::MAX, 0),
        };
        let bytes = value.to_le_bytes();
        let from = usize::try_from(from).unwrap_or(bytes.len());
        let bytes = bytes.get(from..).unwrap_or_default();
        data.fill(0xff);
        data.iter_mut()
            .zip(bytes)
            .for_each(|(to, from)| *to = *from);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let (ADDRESS, Ok(bytes)) = (offset, data.try_into()) {
            self.address = u32::from_le_bytes(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<const N: usize>(host: &mut PciHost, offset: u64) -> [u8; N] {
        let mut data = [0; N];
        host.read(offset, &mut data);
        data
    }

    #[test]
    fn a_kernel_finds_the_mechanism_and_one_bridge() {
        let mut host = PciHost::default();
        host.write(3, &[1]);
        host.write(ADDRESS, &ENABLE.to_le_bytes());
        assert_eq!(read(&mut host, ADDRESS), ENABLE.to_le_bytes());
        assert_eq!(
            read(&mut host, DATA),
            [0xff; 4],
            "no vendor: nothing to enumerate"
        );
        host.write(ADDRESS, &(ENABLE | HOST_BRIDGE_CLASS).to_le_bytes());
        assert_eq!(read(&mut host, DATA + 2), 0x0600_u16.to_le_bytes());
        host.write(
            ADDRESS,
            &(ENABLE | 1 << 11 | HOST_BRIDGE_CLASS).to_le_bytes(),
        );
        assert_eq!(read(&mut host, DATA), [0xff; 4], "device 1 is absent");
        assert_eq!(
            read(&mut host, ADDRESS),
            [0xff],
            "a narrow access is another port"
        );
        let mut again = PciHost::default();
        again.restore(&host.save());
        assert_eq!(
            read(&mut again, ADDRESS),
            read::<4>(&mut host, ADDRESS),
            "saved between the two accesses"
        );
        host.write(DATA, &[0; 4]);
        host.write(DATA + 3, &[0; 8]);
        assert_eq!(read::<8>(&mut host, DATA + 3), [0xff; 8]);
    }
}
