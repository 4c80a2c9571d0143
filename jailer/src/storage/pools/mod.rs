//! Storage pools: a directory, an NFS export, an LVM volume group or a whole disk in which volumes are made.
//! `bantamctl pool` and `bantamctl volume` call it, and so does the start of a guest whose drive names a pool.
//! No daemon watches a pool: each call looks at the host.

mod backend;
pub mod definitions;
pub mod device;
pub mod directory;
mod disk;
mod logical;
pub mod pool;
