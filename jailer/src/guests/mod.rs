//! Guests by name: their definitions in `/etc/bantam/vms`, and what is known of one that runs.
//!
//! A definition is the guest's JSON file, as `jailer --config-file` takes it. Nothing else is kept: a
//! guest runs if the lock of its jail is held.

pub mod channel;
pub mod copies;
pub mod definitions;
pub mod disk;
pub mod fork;
pub mod making;
pub mod network;
pub mod options;
mod pairs;
pub mod service;

use crate::chroot;
use crate::cli::Process;
use crate::dir::Dir;
use crate::error::Error;
use crate::start;
use resources::{Problem, VmConfig};
use std::fs;
use std::io;
use std::path::PathBuf;

/// A guest that is defined.
#[derive(Debug)]
pub struct Guest {
    /// Its name, which is its id.
    pub name: String,
    /// Its definition.
    pub config: VmConfig,
}

impl Guest {
    /// Reads the guest `name`.
    ///
    /// # Errors
    /// [`Error`]: there is none, or its definition is wrong.
    pub fn load(name: &str) -> Result<Self, Error> {
        check_name(name)?;
        let path = definitions::find(name);
        if !path.exists() {
            let message = format!(
                "there is no guest `{name}`: `jailer list` shows which there are, `jailer create --name \
                 {name} ...` makes one"
            );
            return Err(Error::Problems(vec![Problem::new("guest", message)]));
        }
        let loaded = VmConfig::from_file(&path).map_err(|error| {
            let message = crate::error::chain(&error);
            Error::Problems(vec![Problem::new("guest", message)])
        })?;
        Ok(Self {
            name: name.into(),
            config: loaded.config,
        })
    }

    /// The guest of which it is a copy, if it is one.
    pub fn copy_of(&self) -> Option<&str> {
        self.config.host.as_ref()?.copy_of.as_deref()
    }

    /// The directory of its jail, outside the guest's reach.
    pub fn directory(&self) -> PathBuf {
        let (base, exec_name) = options::place(&self.config);
        base.join(exec_name).join(&self.name)
    }

    /// Whether it runs.
    pub fn is_running(&self) -> bool {
        chroot::is_locked(&self.directory())
    }

    /// Its process, if it runs.
    ///
    /// # Errors
    /// What the host says.
    pub fn process(&self) -> Result<Option<i32>, Error> {
        if !self.is_running() {
            return Ok(None);
        }
        let path = self.directory().join(chroot::PROCESS);
        match fs::read_to_string(&path) {
            // It is about to be written.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::step(format!("read {}", path.display()))(e)),
            Ok(text) => Ok(text.parse().ok().filter(|pid| *pid > 1)),
        }
    }

    /// The root of its jail, which belongs to the guest's user.
    ///
    /// # Errors
    /// What the host says: it was never started.
    pub fn root(&self) -> io::Result<Dir> {
        Dir::open(&self.directory())?.enter("root")
    }

    /// What to say if it does not run and should.
    pub fn not_running(&self) -> Error {
        let message = match self.copy_of() {
            Some(of) => {
                format!("is a copy of {of} and has ended: `jailer fork {of}` makes another")
            }
            None => format!("does not run: `jailer start {}`", self.name),
        };
        Error::Problems(vec![Problem::new(&self.name, message)])
    }

    /// Starts it in this process, or in one that this leaves behind, as `process` says.
    ///
    /// # Errors
    /// [`Error`], which is why it did not start.
    pub fn start(&self, process: Process) -> Result<std::convert::Infallible, Error> {
        let options = options::of(self, process)?;
        start::start(options, crate::vmm::Started::now())
    }
}

/// Whether `name` can be a guest's.
///
/// # Errors
/// [`Error::Arguments`].
pub fn check_name(name: &str) -> Result<(), Error> {
    crate::cli::check_id(name).map_err(|_| {
        let shown: String = name.chars().take(80).collect();
        Error::Arguments(format!(
            "`{shown}` cannot be a guest's name: use 1 to 64 letters, digits and `-`"
        ))
    })
}
