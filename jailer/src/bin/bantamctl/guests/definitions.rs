//! Definitions of guests: the JSON files of `/etc/bantam/vms`, which root alone writes.

use jailer::error::Error;
use jailer::jail::copies;
use jailer::jail::options::check_id;
use jailer::sys::dir::{Dir, absent_is_none};
use jailer::undo::{Undo, shared_directories};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::UnlinkatFlags;
use resources::{Problem, VmConfig};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

const DEFINITIONS: &str = "/etc/bantam/vms";

/// Returns the path of the definition of `name`.
pub fn path(name: &str) -> PathBuf {
    Path::new(DEFINITIONS).join(format!("{name}.json"))
}

/// Returns the path of the definition of `name`, or of its record if it is a copy.
pub fn find(name: &str) -> PathBuf {
    Some(copies::path(name))
        .filter(|path| path.exists())
        .unwrap_or_else(|| path(name))
}

/// Returns the names of all guests that are defined, sorted.
pub fn names() -> Result<Vec<String>, Error> {
    let failed = || Error::step::<io::Error>(format!("read {DEFINITIONS}"));
    let directory = absent_is_none(Dir::open(Path::new(DEFINITIONS))).map_err(failed())?;
    let Some(directory) = directory else {
        return Ok(Vec::new());
    };
    let names = directory.names().map_err(failed())?;
    let names = names.iter().filter_map(|file| file.strip_suffix(".json"));
    let known = names.filter(|name| check_id(name).is_ok());
    Ok(known.map(str::to_owned).collect())
}

/// The directory of definitions, locked against other commands that add or remove guests.
#[derive(Debug)]
pub struct Locked {
    directory: Dir,
    _lock: Flock<File>,
}

impl Locked {
    /// Waits for the lock.
    pub fn new() -> Result<Self, Error> {
        let path = Path::new(DEFINITIONS);
        let directory = shared_directories(path, 0o755)?;
        let failed = || format!("lock {DEFINITIONS}");
        let file = File::open(path).map_err(Error::step(failed()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive);
        let lock = lock.map_err(|(_, e)| Error::step(failed())(e))?;
        Ok(Self {
            directory,
            _lock: lock,
        })
    }

    /// Returns the definitions of all guests, except those that cannot be read.
    pub fn others(&self) -> Result<Vec<VmConfig>, Error> {
        let configs = names()?.into_iter().filter_map(|name| {
            let read = VmConfig::read_from_file(&path(&name));
            read.ok().map(|(config, ..)| config)
        });
        Ok(configs.collect())
    }

    /// Returns the users of all guests and copies.
    pub fn uids(&self) -> Result<Vec<u32>, Error> {
        let mut uids = copies::uids()?;
        let others = self.others()?.into_iter();
        uids.extend(others.filter_map(|other| other.host?.uid));
        Ok(uids)
    }

    /// Checks that no guest has the name `name`.
    ///
    /// # Errors
    /// [`Error::Problems`].
    pub fn check_new(&self, name: &str) -> Result<(), Error> {
        if path(name).symlink_metadata().is_err() {
            return Ok(());
        }
        let message = format!(
            "there is a guest `{name}` already ({}): choose another name, or `bantamctl undefine {name}`",
            path(name).display()
        );
        Err(Error::Problems(vec![Problem::new("--name", message)]))
    }

    /// Writes the definition of a new guest; it is on the disk when this returns.
    pub fn save(&self, name: &str, config: &VmConfig, undo: &mut Undo) -> Result<(), Error> {
        let (file, temporary) = (format!("{name}.json"), format!(".{name}.json.new"));
        let failed = || Error::step::<io::Error>(format!("write {}", path(name).display()));
        let text = serde_json::to_vec_pretty(config).map_err(io::Error::from);
        let mut text = text.map_err(failed())?;
        text.push(b'\n');
        let directory = &self.directory;
        let written = directory.write_whole(&file, &temporary, 0o644, &text, false);
        written.map_err(failed())?;
        directory.record(undo, &file, UnlinkatFlags::NoRemoveDir)?;
        directory.sync().map_err(failed())
    }

    /// Removes the definition of `name`.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let removed = self.directory.remove(&format!("{name}.json"));
        let removed = removed.and_then(|()| self.directory.sync());
        removed.map_err(Error::step(format!("remove {}", path(name).display())))
    }
}
