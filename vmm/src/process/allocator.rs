//! The C library's allocator, told to keep one arena for all threads.
//!
//! By itself it makes one for each thread that allocates: 64 MiB of addresses and some 100 KiB of memory for threads
//! that allocate hardly anything, and files are opened when such an arena shrinks, which a confined thread
//! may not.

/// To be called before there is a second thread.
#[expect(
    unsafe_code,
    reason = "no safe function sets an option of the allocator"
)]
pub fn keep_one_arena() {
    // SAFETY: the call sets a number that the allocator reads when it would make an arena. It fails only for
    // an option that the library does not know, and then things are as they were.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}
