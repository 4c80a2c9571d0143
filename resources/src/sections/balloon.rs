//! The `balloon` section, and what the API tells of a balloon in use.

use serde::{Deserialize, Serialize};

/// The `balloon` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balloon {
    /// MiB the guest is asked to give to the host.
    pub amount_mib: u32,
    /// The guest takes its memory back rather than kill a process.
    pub deflate_on_oom: bool,
    /// Seconds between two statistics; none if 0.
    #[serde(default)]
    pub stats_polling_interval_s: u16,
    /// The guest tells on request which of its pages are free.
    #[serde(default)]
    pub free_page_hinting: bool,
    /// The guest tells by itself which of its pages are free.
    #[serde(default)]
    pub free_page_reporting: bool,
}

/// What a balloon in use says of its guest: sizes asked for and reached, and what the guest last
/// told of its memory (section 5.5.6.4 of Virtio 1.2), in bytes or events since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BalloonStats {
    /// Pages of 4 KiB asked for.
    pub target_pages: u32,
    /// Pages of 4 KiB in the balloon.
    pub actual_pages: u32,
    /// MiB asked for.
    pub target_mib: u32,
    /// MiB in the balloon.
    pub actual_mib: u32,
    /// Bytes read from swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_in: Option<u64>,
    /// Bytes written to swap.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub swap_out: Option<u64>,
    /// Page faults that needed the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub major_faults: Option<u64>,
    /// Page faults that did not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minor_faults: Option<u64>,
    /// Bytes that nothing uses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub free_memory: Option<u64>,
    /// Bytes in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_memory: Option<u64>,
    /// Bytes that could be used without swapping.
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
    /// Processes killed for want of memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill: Option<u64>,
    /// Allocations that had to wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alloc_stall: Option<u64>,
    /// Pages looked at in the background to be reclaimed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_scan: Option<u64>,
    /// Pages looked at by allocations themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_scan: Option<u64>,
    /// Pages reclaimed in the background.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub async_reclaim: Option<u64>,
    /// Pages reclaimed by allocations themselves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct_reclaim: Option<u64>,
}

/// Where a run of free page hinting is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HintingStatus {
    /// The command the guest was last given: 0 stops, 1 is done, any other asks for hints.
    pub host_cmd: u32,
    /// The command the guest last answered.
    pub guest_cmd: Option<u32>,
}

#[cfg(test)]
#[path = "balloon_test.rs"]
mod balloon_test;
