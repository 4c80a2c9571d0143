//! Safe functions for the kernel's interfaces and the host's programs: directories by descriptor, signals, processes,
//! tools. Every other room calls it. It knows nothing of guests.

pub mod dir;
pub mod mounts;
pub mod pidfd;
pub mod progress;
pub mod signals;
pub mod tool;
