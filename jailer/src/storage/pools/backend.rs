//! The interface of a type of pool.

use crate::error::Error;
use crate::storage::volume::Wanted;
use crate::sys::dir::Owner;
use crate::undo::Undo;
use nix::fcntl::OFlag;
use resources::Problem;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Room in a pool, in bytes, as libvirt counts it: the capacity is the sum of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// All of it.
    pub capacity: u64,
    /// What is taken.
    pub allocation: u64,
    /// What a guest could write still.
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
    /// Bytes it takes from the pool.
    pub allocation: u64,
}

/// What a type of pool does. Names of volumes were checked with [`Pool::check_name`].
pub trait Backend: std::fmt::Debug + Send {
    /// Whether what a start made is still there; quickly, without asking another program or another host.
    fn is_there(&self) -> bool;
    /// Makes the volumes available; makes what holds them too if `build`.
    fn start(&self, build: bool, undo: &mut Undo) -> Result<(), Error>;
    /// Takes back what [`Self::start`] did. No volume is in use.
    fn stop(&self) -> Result<(), Error>;
    /// How full it is.
    fn usage(&self) -> Result<Usage, Error>;
    /// Its volumes, by name.
    fn volumes(&self) -> Result<Vec<VolumeInfo>, Error>;
    /// Whether a volume can have this name here, beside what [`resources::check_volume_name`] says.
    fn check_name(&self, name: &str) -> Result<(), String>;
    /// Where the volume `name` is, or will be.
    ///
    /// # Errors
    /// What the host says; that there is none, where it is found by looking.
    fn path(&self, name: &str) -> io::Result<PathBuf>;
    /// Opens a volume, through no link that another user can have laid.
    ///
    /// # Errors
    /// What the host says; `NotFound` if there is none.
    fn open(&self, name: &str, flags: OFlag) -> io::Result<OwnedFd>;
    /// Makes a volume.
    fn create(
        &self,
        name: &str,
        wanted: Wanted,
        owner: Owner,
        undo: &mut Undo,
    ) -> Result<(), Error>;
    /// Deletes a volume that nobody uses; `file` is it.
    fn delete(&self, name: &str, file: File, undo: &mut Undo) -> Result<(), Error>;
    /// Gives a volume another size in bytes.
    fn resize(&self, name: &str, file: &File, size: u64, undo: &mut Undo) -> Result<(), Error>;
}

/// What to say if there is a volume of that name.
pub fn volume_clash(name: &str) -> Error {
    let message = format!("there is a volume `{name}` already: choose another name");
    Error::Problems(vec![Problem::new("volume", message)])
}
