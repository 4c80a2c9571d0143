//! A guest's network on the host: taps, the bridges they join, and packet filter rules.
//! A start calls it to create them, `jailer clean` to remove what a guest left, and `bantamctl` to check a new definition.
//! It carries no packets: the kernel does, between the tap and the bridge.

mod bridge;
mod device;
mod interfaces;
mod rules;
mod tap;

pub(crate) use interfaces::{Interface, check, clear, make};
pub use interfaces::{addresses_of, check_new, switch_on_loopback};
