//! The `balloon` section, and the API's reports about a balloon.

use serde::{Deserialize, Serialize};

/// The `balloon` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// Size in MiB that the guest must give to the host.
    pub amount_mib: u32,
    /// True to deflate the balloon instead of letting the guest kill a process.
    pub deflate_on_oom: bool,
    /// Interval of statistics in seconds; 0 disables them.
    #[serde(default)]
    pub stats_polling_interval_s: u16,
    /// True to let the host request hints of free pages.
    #[serde(default)]
    pub free_page_hinting: bool,
    /// True to let the guest report free pages by itself.
    #[serde(default)]
    pub free_page_reporting: bool,
}

/// State of a balloon: requested and reached size, and the guest's latest memory statistics (section 5.5.6.4 of
/// Virtio 1.2), in bytes or events since the guest's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStats {
    /// Requested pages of 4 KiB.
    pub target_pages: u32,
    /// Pages of 4 KiB in the balloon.
    pub actual_pages: u32,
    /// Requested MiB.
    pub target_mib: u32,
    /// MiB in the balloon.
    pub actual_mib: u32,
    /// Bytes read from swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<u64>,
    /// Bytes written to swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<u64>,
    /// Page faults that read from disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// Page faults that did not read from disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor_faults: Option<u64>,
    /// Unused bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_memory: Option<u64>,
    /// Total bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_memory: Option<u64>,
    /// Bytes available without swapping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_memory: Option<u64>,
    /// Bytes of cached files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_caches: Option<u64>,
    /// Huge pages allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb_allocations: Option<u64>,
    /// Huge pages that could not be allocated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hugetlb_failures: Option<u64>,
    /// Processes killed for lack of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    /// Allocations that stalled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alloc_stall: Option<u64>,
    /// Pages scanned in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_scan: Option<u64>,
    /// Pages scanned by allocations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_scan: Option<u64>,
    /// Pages reclaimed in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_reclaim: Option<u64>,
    /// Pages reclaimed by allocations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_reclaim: Option<u64>,
}

/// State of a free page hinting run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintingStatus {
    /// Last command of the host: 0 is STOP, 1 is DONE, any other requests hints.
    pub host_cmd: u32,
    /// Last command that the guest answered.
    pub guest_cmd: Option<u32>,
}

#[cfg(test)]
#[path = "balloon_test.rs"]
mod balloon_test;
