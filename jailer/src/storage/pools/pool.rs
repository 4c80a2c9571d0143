//! A pool of any type: whether it is active, the names of its volumes, and their locks. [`Backend`] is the part that
//! differs by type.

use crate::error::Error;
use crate::storage::lock;
use crate::storage::pools::backend::{Backend, VolumeInfo};
use crate::storage::pools::definitions;
use crate::storage::pools::directory::Directory;
use crate::storage::pools::disk::Disk;
use crate::storage::pools::logical::Logical;
use nix::fcntl::OFlag;
use resources::{PoolDefinition, PoolType, Problem};
use std::fs::File;
use std::io;

/// A defined pool.
#[derive(Debug)]
pub struct Pool {
    /// Its definition.
    pub definition: PoolDefinition,
    /// Its type's implementation.
    pub backend: Box<dyn Backend>,
}

impl Pool {
    /// Loads the pool `name`.
    pub fn load(name: &str) -> Result<Self, Vec<Problem>> {
        definitions::load(name).map(Self::new)
    }

    /// Returns the pool that `definition` defines.
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

    /// Loads the pool `name`, which must be active.
    pub fn active(name: &str) -> Result<Self, Vec<Problem>> {
        let pool = Self::load(name)?;
        if pool.is_active() {
            return Ok(pool);
        }
        let message = format!("`{name}` is not active: `bantamctl pool start {name}`");
        Err(vec![Problem::new("pool", message)])
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.definition.name
    }

    /// Returns whether it was started, and the result of the start still exists.
    pub fn is_active(&self) -> bool {
        definitions::is_marked(self.name()) && self.backend.is_there()
    }

    /// Checks that a volume here can have the name `name`.
    pub fn check_name(&self, name: &str) -> Result<(), String> {
        resources::check_volume_name(name)?;
        self.backend.check_name(name)
    }

    /// Returns the volumes, sorted by name.
    pub fn volumes(&self) -> Result<Vec<VolumeInfo>, Error> {
        let mut volumes = self.backend.volumes()?;
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// Returns the names of the volumes that guests use.
    pub fn in_use(&self) -> Result<Vec<String>, Error> {
        let names = self.volumes()?.into_iter().map(|volume| volume.name);
        Ok(names.filter(|name| self.is_in_use(name)).collect())
    }

    /// Returns whether a guest uses the volume `name`.
    pub fn is_in_use(&self, name: &str) -> bool {
        let opened = self.backend.open(name, OFlag::O_PATH);
        opened.is_ok_and(|fd| lock::in_use(&fd, false))
    }

    /// Opens the volume `name`, and locks it as the monitor would: shared for reading, exclusively for writing.
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
    pub fn open(&self, name: &str, flags: OFlag) -> Result<File, Error> {
        let pool = self.name();
        match self.backend.open(name, flags) {
            Ok(fd) => Ok(fd.into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let message = format!(
                    "there is no volume `{name}` in {pool}: `bantamctl volume list --pool {pool}` shows all \
                     volumes"
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

/// Returns the error of a command on a volume that is in use.
pub fn in_use(pool: &str, name: &str) -> Error {
    let message =
        format!("`{name}` of {pool} is in use by a guest or another command: stop that first");
    Error::Problems(vec![Problem::new("volume", message)])
}
