//! One guest's start: checks everything, makes the jail, drops every privilege and becomes the monitor by exec.
//! `jailer` calls it with its flags and `bantamctl run` with a definition; `clean` removes what an ended guest left.
//! It keeps no process behind and no list of guests.

pub mod cgroup;
mod check;
mod chroot;
pub mod clean;
mod config;
pub mod copies;
mod detach;
mod exec_file;
mod guardian;
pub mod layout;
pub mod lock;
mod monitor;
pub mod options;
mod seed;
pub mod start;
pub mod uids;

pub use monitor::{Started, close_inherited};
