//! Guests by name: definitions in `/etc/bantam/vms`, running guests, copies of them, and what `--disk` and `--network`
//! mean. Commands call it.
//! It starts no monitor: the library does, from the options that `options` makes of a definition.

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
