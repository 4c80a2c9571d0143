//! What the kernel and the host's programs offer, behind safe functions: directories by descriptor, signals, tools.
//! Every other room calls it. It knows nothing of guests.

pub mod dir;
pub mod mounts;
pub mod pidfd;
pub mod progress;
pub mod signals;
pub mod tool;
