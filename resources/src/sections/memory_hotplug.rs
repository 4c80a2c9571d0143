//! The `memory-hotplug` section: memory that is added and removed while the guest runs.

use serde::{Deserialize, Serialize};

/// Smallest and default block size in MiB.
const BLOCK_MIB: u32 = 2;
/// Smallest and default slot size in MiB.
const SLOT_MIB: u32 = 128;

fn block() -> u32 {
    BLOCK_MIB
}

fn slot() -> u32 {
    SLOT_MIB
}

/// The `memory-hotplug` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryHotplug {
    /// Largest hot-plugged memory in MiB, a multiple of the slot size.
    pub total_size_mib: u32,
    /// Unit that the guest adds, in MiB: a power of two, at least 2.
    #[serde(default = "block")]
    pub block_size_mib: u32,
    /// Unit that the host provides, in MiB: a multiple of the block size, at least 128.
    #[serde(default = "slot")]
    pub slot_size_mib: u32,
}

impl MemoryHotplug {
    /// Checks the section.
    ///
    /// # Errors
    /// The first violated rule, in Firecracker's words.
    pub fn validate(&self) -> Result<(), String> {
        let (block, slot) = (self.block_size_mib, self.slot_size_mib);
        let rules = [
            (
                block < BLOCK_MIB,
                format!("Block size must not be lower than {BLOCK_MIB} MiB"),
            ),
            (
                !block.is_power_of_two(),
                "Block size must be a power of 2".into(),
            ),
            (
                slot < SLOT_MIB,
                format!("Slot size must not be lower than {SLOT_MIB} MiB"),
            ),
            (
                !slot.is_multiple_of(block),
                format!("Slot size must be a multiple of block size ({block} MiB)"),
            ),
            (
                self.total_size_mib < slot,
                format!("Total size must not be lower than slot size ({slot} MiB)"),
            ),
            (
                !self.total_size_mib.is_multiple_of(slot),
                format!("Total size must be a multiple of slot size ({slot} MiB)"),
            ),
        ];
        match rules.into_iter().find(|(broken, _)| *broken) {
            Some((_, text)) => Err(text),
            None => Ok(()),
        }
    }
}
