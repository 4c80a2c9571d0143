//! The size of a page.

/// Bytes of a page, as an offset.
pub const PAGE: u64 = PAGE_BYTES as u64;
/// Bytes of a page, as a length in this process.
pub const PAGE_BYTES: usize = 4096;
