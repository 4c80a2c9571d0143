//! Forks: the protocol between a parent and its children, and the socket at which a child waits.
//!
//! The controller uses it on both sides. It freezes no memory and builds no machine.

pub mod clone_file;
pub mod listener;
pub mod wire;
