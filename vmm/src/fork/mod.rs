//! Forks: how a guest reaches the processes that are to have copies of it.

pub mod clone_file;
pub mod listener;
pub mod wire;
