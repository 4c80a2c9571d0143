//! Settings of the C library's allocator.
//!
//! By default glibc makes an arena for each thread that allocates: 64 MiB of addresses and about 100 KiB of memory for
//! threads that allocate almost nothing. It also opens a file when such an arena shrinks, which a confined thread may not
//! do.

/// Makes all threads share one arena. Call it before the second thread starts.
#[expect(
    unsafe_code,
    reason = "no safe function sets an option of the allocator"
)]
pub fn keep_one_arena() {
    // SAFETY: the call sets a number that the allocator reads before it makes an arena. It fails only for an unknown
    // option, and changes nothing then.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
