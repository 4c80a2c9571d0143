//! Which system calls each thread may make once the guest runs, and with which arguments: a guest that
//! takes over a thread finds little to do with it.
//!
//! Each thread confines itself: those of vCPUs, disks and the API when they start, the main thread when it
//! has built the machine and is about to let it run. The lists are [`rules`], whose text says how to
//! write one; a call that is not on its thread's ends the process, as [`violation`] says.

mod built_in;
mod compile;
mod filters;
pub mod rules;
mod violation;

pub use filters::{DEFAULT, Filters, SeccompError, Thread, parse};
