//! The memory map of the guest: the e820 entries of the zero page, and the same for PVH.
//!
//! [`crate::load_with`] uses it. The map is derived from guest memory, so the two cannot disagree.

use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use crate::layout;
use vm_memory::GuestMemoryMmap;
use vm_memory::bitmap::AtomicBitmap;

/// Guest memory. It records written pages if it was mapped with a bitmap.
pub type GuestMemory = GuestMemoryMmap<Option<AtomicBitmap>>;

/// Usage of a range of guest-physical addresses, numbered as in e820 (ACPI 6.5, table 15.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Usage {
    /// Free for the guest.
    Ram = 1,
    /// Holds data that the guest must not overwrite.
    Reserved = 2,
}

/// One entry of the memory map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) start: u64,
    pub(crate) len: u64,
    pub(crate) usage: Usage,
}

/// Returns the end of the RAM that starts at 0 without a hole, below the MMIO gap.
pub(crate) fn low_ram_end(mem: &GuestMemory) -> u64 {
    let end = mem.iter().fold(0, |end, region| {
        if region.start_addr().raw_value() == end {
            end.saturating_add(region.len())
        } else {
            end
        }
    });
    end.min(layout::MMIO_GAP_START)
}

/// Returns the memory map of `mem`, ascending. The range of VGA and option ROMs is RAM, but in no entry.
pub(crate) fn memory_map(mem: &GuestMemory) -> Vec<Entry> {
    let ram = |start: u64, end: u64| Entry {
        start,
        len: end - start,
        usage: Usage::Ram,
    };
    let mut map = vec![
        ram(0, layout::LOW_RAM_END),
        Entry {
            start: layout::ACPI_START,
            len: layout::HIGH_RAM_START - layout::ACPI_START,
            usage: Usage::Reserved,
        },
    ];
    for region in mem.iter() {
        let start = region.start_addr().raw_value();
        let end = start.saturating_add(region.len());
        let start = start.max(layout::HIGH_RAM_START);
        if start >= end {
            continue;
        }
        match map.last_mut() {
            // Adjacent regions form one range.
            Some(last) if last.usage == Usage::Ram && last.start + last.len == start => {
                last.len += end - start
            }
            _ => map.push(ram(start, end)),
        }
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::memory_at as memory;

    #[test]
    fn the_map_covers_ram_and_nothing_else() {
        let mem = memory(&[(0, 3 << 30), (4 << 30, 1 << 30)]);
        let map: Vec<_> = memory_map(&mem)
            .iter()
            .map(|e| (e.start, e.len, e.usage))
            .collect();
        assert_eq!(
            map,
            [
                (0, 0x9_fc00, Usage::Ram),
                (0xe_0000, 0x2_0000, Usage::Reserved),
                (0x10_0000, (3 << 30) - 0x10_0000, Usage::Ram),
                (4 << 30, 1 << 30, Usage::Ram),
            ]
        );
        assert_eq!(low_ram_end(&mem), 3 << 30);
    }

    #[test]
    fn adjacent_regions_are_joined() {
        let mem = memory(&[(0, 2 << 20), (2 << 20, 2 << 20), (8 << 20, 1 << 20)]);
        let map = memory_map(&mem);
        assert_eq!(
            map[2],
            Entry {
                start: 1 << 20,
                len: 3 << 20,
                usage: Usage::Ram
            }
        );
        assert_eq!(map[3].start, 8 << 20);
        assert_eq!(low_ram_end(&mem), 4 << 20);
    }

    #[test]
    fn ram_that_does_not_start_at_zero_is_not_low_ram() {
        assert_eq!(low_ram_end(&memory(&[(1 << 20, 1 << 20)])), 0);
    }
}
