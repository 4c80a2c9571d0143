//! Seccomp filters: the system calls, and their arguments, that each thread may make once the guest runs. A guest that takes
//! over a thread can do little with it.
//!
//! Each thread applies its own filter: the threads of vCPUs, devices and the API when they start, the main thread when it
//! has built the machine. [`rules`] describes the format of the lists. A call that its thread's list does not allow ends the
//! process with status 148 and a message. This room starts no thread.

mod built_in;
mod compile;
mod filters;
pub mod rules;
mod violation;

pub use filters::{DEFAULT, Filters, SeccompError, Thread, parse};
