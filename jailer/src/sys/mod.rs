//! Safe functions for the kernel's interfaces and the host's programs: directories by descriptor, signals, processes,
//! tools. Every other room calls it. It knows nothing of guests.

pub mod dir;
pub(crate) mod mounts;
pub mod pidfd;
pub(crate) mod progress;
pub mod signals;
pub mod tool;
