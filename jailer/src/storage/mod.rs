//! A guest's files on the host: kernel, initrd, disk images and block devices, found or created.
//! A start calls it for one guest's drives, and `bantamctl` for pools and volumes.
//! It copies images, but parses none: a guest may have written them.

pub mod copy;
pub mod drives;
pub mod lock;
pub mod pools;
pub mod qcow2;
pub mod volume;
