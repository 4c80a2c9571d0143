//! The size of a page.

/// Bytes of a page, as snapshots count them.
pub const PAGE: u64 = PAGE_BYTES as u64;
/// The same, of bytes in this process.
pub const PAGE_BYTES: usize = 4096;
