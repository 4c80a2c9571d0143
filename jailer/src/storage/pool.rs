//! A storage pool: what every type of pool can do ([`Backend`], a file for each type), and what is the same for
//! all: whether it is active, its names, its locks. Used by `jailer pool`, by `jailer volume` and by the start
//! of a guest whose drive names a pool.

use crate::dir::{Owner, by_descriptor};
use crate::error::Error;
use crate::storage::definitions;
use crate::storage::directory::Directory;
use crate::storage::disk::Disk;
use crate::storage::lock;
use crate::storage::logical::Logical;
use crate::storage::volume::Wanted;
use crate::undo::Undo;
use nix::fcntl::OFlag;
use resources::{PoolDefinition, PoolType, Problem};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
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
    ///
    /// # Errors
    /// [`Error`].
    fn start(&self, build: bool, undo: &mut Undo) -> Result<(), Error>;
    /// Takes back what [`Self::start`] did. No volume is in use.
    ///
    /// # Errors
    /// [`Error`].
    fn stop(&self) -> Result<(), Error>;
    /// How full it is.
    ///
    /// # Errors
    /// [`Error`].
    fn usage(&self) -> Result<Usage, Error>;
    /// Its volumes, by name.
    ///
    /// # Errors
    /// [`Error`].
    fn volumes(&self) -> Result<Vec<VolumeInfo>, Error>;
    /// Whether a volume can have this name here, beside what [`resources::check_volume_name`] says.
    ///
    /// # Errors
    /// What is wrong with it.
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
    ///
    /// # Errors
    /// [`Error`].
    fn create(
        &self,
        name: &str,
        wanted: Wanted,
        owner: Owner,
        undo: &mut Undo,
    ) -> Result<(), Error>;
    /// Deletes a volume that nobody uses; `file` is it.
    ///
    /// # Errors
    /// [`Error`].
    fn delete(&self, name: &str, file: File, undo: &mut Undo) -> Result<(), Error>;
    /// Gives a volume another size in bytes.
    ///
    /// # Errors
    /// [`Error`].
    fn resize(&self, name: &str, file: &File, size: u64, undo: &mut Undo) -> Result<(), Error>;
}

/// A pool that is defined.
#[derive(Debug)]
pub struct Pool {
    /// Its definition.
    pub definition: PoolDefinition,
    /// What it is made of.
    pub backend: Box<dyn Backend>,
}

impl Pool {
    /// The pool `name`.
    ///
    /// # Errors
    /// There is none, or its definition is wrong.
    pub fn load(name: &str) -> Result<Self, Vec<Problem>> {
        definitions::load(name).map(Self::new)
    }

    /// The pool that `definition` defines.
    pub fn new(definition: PoolDefinition) -> Self {
        let backend: Box<dyn Backend> = match definition.kind {
            PoolType::Dir | PoolType::Netfs => Box::new(Directory::new(&definition)),
            PoolType::Logical => Box::new(Logical::new(&definition)),
            PoolType::Disk => Box::new(Disk::new(&definition)),
        };
        Self {
            definition,
            backend,
        }
    }

    /// The active pool `name`.
    ///
    /// # Errors
    /// As [`Self::load`], and that it is not active.
    pub fn active(name: &str) -> Result<Self, Vec<Problem>> {
        let pool = Self::load(name)?;
        if pool.is_active() {
            return Ok(pool);
        }
        let message = format!("`{name}` is not active: `jailer pool start {name}`");
        Err(vec![Problem::new("pool", message)])
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Whether it was started, and what that made is there.
    pub fn is_active(&self) -> bool {
        definitions::is_marked(self.name()) && self.backend.is_there()
    }

    /// Whether a volume here can be called `name`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check_name(&self, name: &str) -> Result<(), String> {
        resources::check_volume_name(name)?;
        self.backend.check_name(name)
    }

    /// The volumes that guests use.
    ///
    /// # Errors
    /// [`Error`].
    pub fn in_use(&self) -> Result<Vec<String>, Error> {
        let volumes = self.backend.volumes()?.into_iter();
        let used = volumes.filter(|volume| {
            let opened = self.backend.open(&volume.name, OFlag::O_PATH);
            opened.is_ok_and(|fd| lock::in_use(&fd, false))
        });
        Ok(used.map(|volume| volume.name).collect())
    }

    /// Opens the volume `name`, and locks it as the VMM would: shared for reading, alone for writing.
    ///
    /// # Errors
    /// There is none, it is in use, or what the host says.
    pub fn lock(&self, name: &str, write: bool) -> Result<File, Error> {
        let flags = if write {
            OFlag::O_RDWR
        } else {
            OFlag::O_RDONLY
        };
        let file = self.open(name, flags)?;
        let pool = self.name();
        match lock::lock(&file, !write) {
            Ok(true) => Ok(file),
            Ok(false) => Err(in_use(pool, name)),
            Err(e) => Err(Error::step(format!("lock the volume {name} of {pool}"))(e)),
        }
    }

    /// Opens the volume `name`.
    ///
    /// # Errors
    /// There is none, or what the host says.
    pub fn open(&self, name: &str, flags: OFlag) -> Result<File, Error> {
        let pool = self.name();
        match self.backend.open(name, flags) {
            Ok(fd) => Ok(fd.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let message = format!(
                    "there is no volume `{name}` in {pool}: `jailer volume list --pool {pool}` shows which \
                     there are"
                );
                Err(Error::Problems(vec![Problem::new("volume", message)]))
            }
            Err(e) => {
                let hint = match (self.definition.kind, e.kind()) {
                    (PoolType::Netfs, io::ErrorKind::PermissionDenied) => {
                        "; the server must export it with no_root_squash"
                    }
                    _ => "",
                };
                Err(Error::step(format!(
                    "open the volume {name} of {pool}{hint}"
                ))(e))
            }
        }
    }
}

/// What to say if a guest uses the volume.
pub fn in_use(pool: &str, name: &str) -> Error {
    let message =
        format!("`{name}` of {pool} is in use by a guest or another command: stop that first");
    Error::Problems(vec![Problem::new("volume", message)])
}

/// What to say if there is a volume of that name.
pub fn volume_clash(name: &str) -> Error {
    let message = format!("there is a volume `{name}` already: choose another name");
    Error::Problems(vec![Problem::new("volume", message)])
}

/// Opens the block device at `path`, which only the superuser can have laid; `NotFound` if it is none.
///
/// # Errors
/// What the host says.
pub fn open_device(path: &std::path::Path, flags: OFlag) -> io::Result<OwnedFd> {
    use std::os::unix::fs::FileTypeExt as _;
    let look = File::options()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(path)?;
    if !look.metadata()?.file_type().is_block_device() {
        return Err(io::ErrorKind::NotFound.into());
    }
    if flags.contains(OFlag::O_PATH) {
        return Ok(look.into());
    }
    let flags = flags | OFlag::O_CLOEXEC;
    let mode = nix::sys::stat::Mode::empty();
    Ok(nix::fcntl::open(&by_descriptor(&look), flags, mode)?)
}
