//! A guest's files on the host: kernel, initrd, disk images and block devices, found or made.
//! A start calls it for one guest's drives, and `bantamctl` for pools and volumes.
//! It reads no byte of an image to understand it: a guest may have written it.

pub mod copy;
pub mod drives;
pub mod lock;
pub mod pools;
pub mod qcow2;
pub mod volume;
