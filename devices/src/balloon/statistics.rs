//! Parses the guest's memory statistics (section 5.5.6.3): pairs of a tag and a value.

use resources::BalloonStats;

/// Bytes of a pair: a 16-bit tag and a 64-bit value.
const PAIR: usize = 10;
/// Largest number of bytes that are read. Linux sends 16 pairs.
pub(super) const MAX_STATISTICS: usize = 64 * PAIR;

/// Parses pairs. Unknown tags are ignored, and the last of several equal tags counts.
pub(super) fn parse(bytes: &[u8]) -> BalloonStats {
    let mut stats = BalloonStats::default();
    for pair in bytes.chunks_exact(PAIR) {
        let Some((tag, value)) = pair.split_first_chunk() else {
            continue;
        };
        let value = <[u8; 8]>::try_from(value).map(u64::from_le_bytes).ok();
        // VIRTIO_BALLOON_S_*, in numerical order.
        let field = match u16::from_le_bytes(*tag) {
            0 => &mut stats.swap_in,
            1 => &mut stats.swap_out,
            2 => &mut stats.major_faults,
            3 => &mut stats.minor_faults,
            4 => &mut stats.free_memory,
            5 => &mut stats.total_memory,
            6 => &mut stats.available_memory,
            7 => &mut stats.disk_caches,
            8 => &mut stats.hugetlb_allocations,
            9 => &mut stats.hugetlb_failures,
            10 => &mut stats.oom_kill,
            11 => &mut stats.alloc_stall,
            12 => &mut stats.async_scan,
            13 => &mut stats.direct_scan,
            14 => &mut stats.async_reclaim,
            15 => &mut stats.direct_reclaim,
            _ => continue,
        };
        *field = value;
    }
    stats
}
