//! A guest's network on the host: taps, the bridges they join, and packet filter rules.
//! A start calls it, `jailer clean` does to remove what a guest left, and `bantamctl` to check a new definition.
//! It carries no packets: the kernel does, between the tap and the bridge.

mod bridge;
mod device;
mod interfaces;
mod rules;
mod tap;

pub use interfaces::{Interface, addresses_of, check, check_new, clear, make, switch_on_loopback};
