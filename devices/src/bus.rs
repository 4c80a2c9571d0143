//! Routes the port and memory accesses of a vCPU to the device at the address.

use crate::lock;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

/// A device that answers accesses to a range of addresses. The guest chooses the offset, the length (1 to 8 bytes) and
/// the data; an implementation must not panic on any of them.
pub trait BusDevice: Send {
    /// Fills `data` from the register at `offset`.
    fn read(&mut self, offset: u64, data: &mut [u8]);
    /// Stores `data` to the register at `offset`.
    fn write(&mut self, offset: u64, data: &[u8]);
}

/// The range overlaps that of another device, or ends beyond the address space.
#[derive(Debug, thiserror::Error)]
#[error("bus range {base:#x}+{len:#x} overlaps another device")]
pub struct Overlap {
    base: u64,
    len: u64,
}

/// A device shared between the vCPUs.
pub type SharedDevice = Arc<Mutex<dyn BusDevice>>;

struct Range {
    len: u64,
    device: SharedDevice,
}

/// Non-overlapping address ranges, each owned by one device.
#[derive(Default)]
pub struct Bus {
    ranges: BTreeMap<u64, Range>,
}

impl Bus {
    /// Assigns the addresses `base..base + len` to `device`.
    ///
    /// # Errors
    /// [`Overlap`] if part of the range is assigned already or beyond the end of the address space.
    pub fn insert(&mut self, base: u64, len: u64, device: SharedDevice) -> Result<(), Overlap> {
        let overlap = Overlap { base, len };
        let Some(end) = base.checked_add(len) else {
            return Err(overlap);
        };
        let below = self.ranges.range(..end).next_back();
        if len == 0 || below.is_some_and(|(start, range)| start + range.len > base) {
            return Err(overlap);
        }
        self.ranges.insert(base, Range { len, device });
        Ok(())
    }

    /// Reads from the device at `address`. Returns false if no device has the whole access.
    pub fn read(&self, address: u64, data: &mut [u8]) -> bool {
        let Some((device, offset)) = self.find(address, data.len()) else {
            return false;
        };
        lock(device).read(offset, data);
        true
    }

    /// Writes to the device at `address`. Returns false if no device has the whole access.
    pub fn write(&self, address: u64, data: &[u8]) -> bool {
        let Some((device, offset)) = self.find(address, data.len()) else {
            return false;
        };
        lock(device).write(offset, data);
        true
    }

    fn find(&self, address: u64, len: usize) -> Option<(&Mutex<dyn BusDevice>, u64)> {
        let (base, range) = self.ranges.range(..=address).next_back()?;
        let offset = address - base;
        let end = offset.checked_add(len as u64)?;
        (end <= range.len).then_some((&*range.device, offset))
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.ranges.iter().map(|(base, range)| (base, range.len));
        f.debug_map().entries(ranges).finish()
    }
}

#[cfg(test)]
#[path = "bus_test.rs"]
mod bus_test;
