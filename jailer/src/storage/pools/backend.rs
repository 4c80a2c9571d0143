//! The interface of a type of pool.

use crate::error::Error;
use crate::storage::volume::VolumeRequest;
use crate::sys::dir::Owner;
use crate::undo::Undo;
use nix::fcntl::OFlag;
use resources::Problem;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Usage of a pool in bytes, as libvirt counts it: the capacity is the sum of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Total.
    pub capacity: u64,
    /// Allocated.
    pub allocation: u64,
    /// Available to guests.
    pub available: u64,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeInfo {
    /// Its name in the pool.
    pub name: String,
    /// Its path on the host.
    pub path: PathBuf,
    /// The disk's size in bytes.
    pub capacity: u64,
    /// Bytes that it uses of the pool.
    pub allocation: u64,
}

/// A type of pool. The pool has checked the names of volumes.
pub trait Backend: std::fmt::Debug + Send {
    /// Returns whether the result of a start still exists. It runs no program and asks no other host.
    fn is_there(&self) -> bool;
    /// Makes the volumes available; with `build`, also makes the directory or the partition table that holds them.
    fn start(&self, build: bool, undo: &mut Undo) -> Result<(), Error>;
    /// Undoes [`Self::start`]. No volume may be in use.
    fn stop(&self) -> Result<(), Error>;
    /// Returns its usage.
    fn usage(&self) -> Result<Usage, Error>;
    /// Returns its volumes, in any order.
    fn volumes(&self) -> Result<Vec<VolumeInfo>, Error>;
    /// Checks that a volume can have this name here, in addition to [`resources::check_volume_name`].
    fn check_name(&self, name: &str) -> Result<(), String>;
    /// Returns the path of the volume `name`, which may not exist yet.
    ///
    /// # Errors
    /// `NotFound`, if only an existing volume has a path.
    fn path(&self, name: &str) -> io::Result<PathBuf>;
    /// Opens a volume, but through no symbolic link that another user can make.
    ///
    /// # Errors
    /// `NotFound` if there is none.
    fn open(&self, name: &str, flags: OFlag) -> io::Result<OwnedFd>;
    /// Makes a volume.
    fn create(
        &self,
        name: &str,
        request: VolumeRequest,
        owner: Owner,
        undo: &mut Undo,
    ) -> Result<(), Error>;
    /// Deletes a volume that is not in use; `file` is open on it.
    fn delete(&self, name: &str, file: File, undo: &mut Undo) -> Result<(), Error>;
    /// Resizes a volume to `size` bytes; `file` is open on it.
    fn resize(&self, name: &str, file: &File, size: u64, undo: &mut Undo) -> Result<(), Error>;
}

/// Returns the error of a command that would make a second volume of that name.
pub fn volume_clash(name: &str) -> Error {
    let message = format!("there is a volume `{name}` already: choose another name");
    Error::Problems(vec![Problem::new("volume", message)])
}
