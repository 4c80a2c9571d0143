//! Guest memory: mapping it, giving it to KVM, reading it in place, and the layers of files that back it.
//!
//! The machine, snapshots and forks use it. It knows neither their formats nor vCPUs.

pub mod layers;
pub mod mapping;
pub mod page;
pub mod page_set;
pub mod ranges;
pub mod view;
