//! Notifies the guest that it was restored from a snapshot or forked. Random numbers, keys and names that it generated
//! before may be shared with another guest then, and its clock stood still.
//!
//! Two ACPI devices do so, whose places the tables name: VMGenID, a 16-byte id that changes with every generation, and
//! the page of VMClock (UAPI.13), which counts generations and clock disruptions. Both lie in guest memory, where the guest
//! may overwrite them to its own harm. VMClock tells no time here: it reports an invalid counter.
//!
//! Linux with the driver mixes a new VMGenID into its random numbers at once. The driver exists since 5.18 with
//! `CONFIG_VMGENID`: Debian's generic kernels (6.1 to 6.12) have it built in, its cloud kernels do not. VMClock's page is
//! `/dev/vmclock0` since 6.13 with `CONFIG_PTP_1588_CLOCK_VMCLOCK`. A kernel with neither still gets fresh randomness
//! from the entropy device, but no notification.

use crate::GuestMemory;
use std::io;
use std::sync::atomic::{Ordering, fence};
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemoryError};
use vmm_sys_util::eventfd::EventFd;

/// Bytes of a VMGenID.
const ID: usize = 16;
/// Bytes of VMClock's page.
const PAGE: u32 = 0x1000;

/// Offsets and values of `struct vmclock_abi`, little-endian.
mod clock {
    /// "VCLK".
    pub const MAGIC: (u64, u32) = (0x00, 0x4b4c_4356);
    pub const SIZE: u64 = 0x04;
    pub const VERSION: (u64, u16) = (0x08, 1);
    /// No counter is paired with the clock.
    pub const COUNTER_INVALID: (u64, u8) = (0x0a, 0xff);
    /// Odd while the page is updated.
    pub const SEQUENCE: u64 = 0x0c;
    pub const DISRUPTION_MARKER: u64 = 0x10;
    /// Flags 8 and 9: the generation counter is valid, and updates of the page are notified. The clock status after it, 0,
    /// is "unknown".
    pub const FLAGS: (u64, u64) = (0x18, 1 << 8 | 1 << 9);
    pub const GENERATION: u64 = 0x68;
}

/// The guest could not be notified.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// No random bytes for an id.
    #[error("cannot get random bytes from the host for the VM generation id")]
    Random(#[source] io::Error),
    /// The page of the id or of the clock is not in guest memory.
    #[error("the VM generation id or clock page is outside guest memory")]
    Memory(#[from] GuestMemoryError),
    /// The guest cannot be interrupted.
    #[error("cannot interrupt the guest")]
    Signal(#[source] io::Error),
}

/// VMGenID and VMClock of one guest.
pub struct Generation {
    mem: GuestMemory,
    id: GuestAddress,
    clock: GuestAddress,
    irq: EventFd,
}

impl Generation {
    /// Uses the VMGenID at `id` and the VMClock page at `clock`, as the ACPI tables name them. `irq` makes the tables'
    /// code notify the drivers of both.
    pub fn new(mem: GuestMemory, id: GuestAddress, clock: GuestAddress, irq: EventFd) -> Self {
        Self {
            mem,
            id,
            clock,
            irq,
        }
    }

    /// Writes the id and the clock page of a guest that boots.
    ///
    /// # Errors
    /// [`GenerationError`]: the id or the page could not be written.
    pub fn first(&self) -> Result<(), GenerationError> {
        self.write_id()?;
        let [magic, version, counter] = [
            self.field(clock::MAGIC.0),
            self.field(clock::VERSION.0),
            self.field(clock::COUNTER_INVALID.0),
        ];
        self.mem.write_obj(clock::MAGIC.1.to_le(), magic)?;
        self.mem.write_obj(PAGE.to_le(), self.field(clock::SIZE))?;
        self.mem.write_obj(clock::VERSION.1.to_le(), version)?;
        self.mem.write_obj(clock::COUNTER_INVALID.1, counter)?;
        let flags = self.field(clock::FLAGS.0);
        Ok(self.mem.write_obj(clock::FLAGS.1.to_le(), flags)?)
    }

    /// Gives the guest a new generation id and notifies it. Call it while the vCPUs are stopped, after memory and
    /// interrupt controllers were restored.
    ///
    /// # Errors
    /// [`GenerationError`]: the guest must not run, because it may share its id with another guest.
    pub fn renew(&self) -> Result<(), GenerationError> {
        self.write_id()?;
        let sequence = self.field(clock::SEQUENCE);
        let odd = u32::from_le(self.mem.read_obj(sequence)?) | 1;
        self.mem.store(odd.to_le(), sequence, Ordering::Relaxed)?;
        fence(Ordering::Release);
        for counter in [clock::DISRUPTION_MARKER, clock::GENERATION] {
            let at = self.field(counter);
            let count = u64::from_le(self.mem.read_obj(at)?).wrapping_add(1);
            self.mem.write_obj(count.to_le(), at)?;
        }
        let even = odd.wrapping_add(1);
        self.mem.store(even.to_le(), sequence, Ordering::Release)?;
        self.irq.write(1).map_err(GenerationError::Signal)
    }

    fn write_id(&self) -> Result<(), GenerationError> {
        let mut id = [0; ID];
        getrandom::fill(&mut id).map_err(|e| GenerationError::Random(e.into()))?;
        Ok(self.mem.write_slice(&id, self.id)?)
    }

    fn field(&self, offset: u64) -> GuestAddress {
        // An address that wraps around is outside guest memory, so the access fails.
        GuestAddress(self.clock.raw_value().wrapping_add(offset))
    }
}

#[cfg(test)]
#[path = "vmgenid_test.rs"]
mod vmgenid_test;
