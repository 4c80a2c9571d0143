//! Guest memory: mapping it, giving it to KVM, reading it in place, and the layers of files that it can come from.

pub mod layers;
pub mod mapping;
pub mod page;
pub mod page_set;
pub mod ranges;
pub mod view;
