//! Tells the guest that it is not who it was: restored from a snapshot, or a copy of a guest that runs on. Random
//! numbers, keys and names that it made ahead are then no longer its own, and its clock has stood still.
//!
//! Two devices of ACPI say so, of which the tables name the places: VMGenID, an id of 16 bytes that is another one
//! in each generation, and the page of VMClock (UAPI.13), which counts generations and disruptions of the clock. Both are
//! in guest memory and belong to the guest as any other: it may spoil them, to its own harm. Neither keeps time: VMClock
//! says that it knows none.
//!
//! Linux mixes a new VMGenID into its random numbers at once, where it has the driver: since 5.18 with
//! `CONFIG_VMGENID`, which Debian's generic kernels (6.1 to 6.12) have built in and its cloud kernels have not. A page
//! of VMClock is `/dev/vmclock0` since 6.13 with `CONFIG_PTP_1588_CLOCK_VMCLOCK`. A kernel with neither
//! still gets fresh randomness where there is an entropy device, but no word of why.

use crate::GuestMemory;
use std::io;
use std::sync::atomic::{Ordering, fence};
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemoryError};
use vmm_sys_util::eventfd::EventFd;

/// Bytes of a VMGenID.
const ID: usize = 16;
/// Bytes of VMClock's page.
const PAGE: u32 = 0x1000;

/// Fields of `struct vmclock_abi`, little-endian, by their offsets.
mod clock {
    /// "VCLK".
    pub const MAGIC: (u64, u32) = (0x00, 0x4b4c_4356);
    pub const SIZE: u64 = 0x04;
    pub const VERSION: (u64, u16) = (0x08, 1);
    /// There is no counter of which the time is told.
    pub const COUNTER_INVALID: (u64, u8) = (0x0a, 0xff);
    /// Odd while the page changes.
    pub const SEQUENCE: u64 = 0x0c;
    pub const DISRUPTION_MARKER: u64 = 0x10;
    /// The generation is counted, and each change of the page told. The state of the clock after it, 0, is
    /// "unknown".
    pub const FLAGS: (u64, u64) = (0x18, 1 << 8 | 1 << 9);
    pub const GENERATION: u64 = 0x68;
}

/// The guest cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// No randomness for an id.
    #[error("the host has no random numbers")]
    Random(#[source] io::Error),
    /// The places are not in guest memory.
    #[error("the id of the guest's generation has no place in its memory")]
    Memory(#[from] GuestMemoryError),
    /// The guest cannot be interrupted.
    #[error("cannot signal the guest")]
    Signal(#[source] io::Error),
}

/// Who a guest is.
pub struct Generation {
    mem: GuestMemory,
    id: GuestAddress,
    clock: GuestAddress,
    irq: EventFd,
}

impl Generation {
    /// With VMGenID at `id` and the page of VMClock at `clock`, as the tables say, and an interrupt that has the
    /// tables' code tell the drivers of both.
    pub fn new(mem: GuestMemory, id: GuestAddress, clock: GuestAddress, irq: EventFd) -> Self {
        Self {
            mem,
            id,
            clock,
            irq,
        }
    }

    /// Writes both, for a guest that boots.
    ///
    /// # Errors
    /// [`GenerationError`].
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

    /// Makes the guest another than it was, and tells it so. To be called while its vCPUs stand still, after its memory
    /// and its interrupt controllers were loaded.
    ///
    /// # Errors
    /// [`GenerationError`]: the guest must not run, or two guests may be one.
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
        // Past the end of the address space there is no memory: the access will fail.
        GuestAddress(self.clock.raw_value().wrapping_add(offset))
    }
}

#[cfg(test)]
#[path = "vmgenid_test.rs"]
mod vmgenid_test;
