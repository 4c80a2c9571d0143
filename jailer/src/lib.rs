//! Prepares guests on a Linux host as root: jails, disk images, taps and bridges.
//!
//! Two programs share this library. `jailer` starts one guest by Firecracker's flags; `bantamctl` keeps guests, pools
//! and volumes by name. A third program, `bantam-image-reader`, parses guests' images without any privilege.
//!
//! The rooms, each of which imports only those before it: `error`, `sys`, `undo`, `confine`, then `image`, `network`
//! and `storage`, then `jail`.

pub mod confine;
pub mod error;
pub mod image;
pub mod jail;
pub mod network;
pub mod storage;
pub mod sys;
pub mod undo;
