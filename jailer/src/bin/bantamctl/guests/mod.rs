//! Guests by name: definitions in `/etc/bantam/vms`, running guests, their copies, and the options `--disk` and
//! `--network`. Commands call it.
//! It starts no monitor: the library does, with the options that `options` makes from a definition.

pub mod channel;
pub mod copies;
pub mod definitions;
pub mod disk;
pub mod fork;
pub mod guest;
pub mod making;
pub mod network;
pub mod options;
mod pairs;
