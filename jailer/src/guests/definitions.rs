//! Where guests are written down: `/etc/bantam/vms`, the superuser's.

use crate::dir::{Dir, ROOT};
use crate::error::Error;
use crate::undo::Undo;
use nix::fcntl::{Flock, FlockArg};
use resources::{Problem, VmConfig};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const DEFINITIONS: &str = "/etc/bantam/vms";

/// Where the definition of `name` is.
pub fn path(name: &str) -> PathBuf {
    Path::new(DEFINITIONS).join(format!("{name}.json"))
}

/// Where the definition of `name` is, or what is written down of it if it is a copy.
pub fn find(name: &str) -> PathBuf {
    Some(super::copies::path(name))
        .filter(|path| path.exists())
        .unwrap_or_else(|| path(name))
}

/// The names of all guests that are defined, in order.
///
/// # Errors
/// What the host says.
pub fn names() -> Result<Vec<String>, Error> {
    let dir = match Dir::open(Path::new(DEFINITIONS)) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        dir => dir,
    };
    let names = dir.and_then(|dir| dir.names());
    let names = names.map_err(Error::step(format!("read {DEFINITIONS}")))?;
    let names = names.iter().filter_map(|file| file.strip_suffix(".json"));
    let known = names.filter(|name| super::check_name(name).is_ok());
    Ok(known.map(str::to_owned).collect())
}

/// All definitions, held against others who add to them.
#[derive(Debug)]
pub struct Held {
    dir: Dir,
    _lock: Flock<File>,
}

impl Held {
    /// Waits until nobody else adds a guest.
    ///
    /// # Errors
    /// What the host says.
    pub fn new() -> Result<Self, Error> {
        let opened = || -> io::Result<(Dir, File)> {
            fs::create_dir_all(DEFINITIONS)?;
            let path = Path::new(DEFINITIONS);
            Ok((Dir::open(path)?, File::open(path)?))
        };
        let failed = || format!("use {DEFINITIONS}");
        let (dir, file) = opened().map_err(Error::step(failed()))?;
        let lock = Flock::lock(file, FlockArg::LockExclusive);
        let lock = lock.map_err(|(_, e)| Error::step(failed())(e))?;
        Ok(Self { dir, _lock: lock })
    }

    /// The guests that there are; one whose file is wrong is none.
    ///
    /// # Errors
    /// What the host says.
    pub fn others(&self) -> Result<Vec<VmConfig>, Error> {
        let configs = names()?.into_iter().filter_map(|name| {
            let read = VmConfig::read_from_file(&path(&name));
            read.ok().map(|(config, ..)| config)
        });
        Ok(configs.collect())
    }

    /// Refuses a name that is taken.
    ///
    /// # Errors
    /// [`Error::Problems`].
    pub fn check_new(&self, name: &str) -> Result<(), Error> {
        if path(name).symlink_metadata().is_err() {
            return Ok(());
        }
        let message = format!(
            "there is a guest `{name}` already ({}): choose another, or `jailer undefine {name}`",
            path(name).display()
        );
        Err(Error::Problems(vec![Problem::new("--name", message)]))
    }

    /// Writes the guest `name` down: whole, on the disk when this returns.
    ///
    /// # Errors
    /// What the host says.
    pub fn save(&self, name: &str, config: &VmConfig, undo: &mut Undo) -> Result<(), Error> {
        let (file, aside) = (format!("{name}.json"), format!(".{name}.json.new"));
        let failed = || format!("write {}", path(name).display());
        let text = serde_json::to_vec_pretty(config);
        let mut text = text.map_err(|e| Error::step(failed())(io::Error::from(e)))?;
        text.push(b'\n');
        self.dir.make_file(undo, &aside, 0o644, ROOT, |to| {
            to.write_all(&text)?;
            to.sync_all()
        })?;
        let named = self.dir.rename_new(&aside, &file);
        named.map_err(Error::step(failed()))?;
        self.dir
            .record(undo, &file, nix::unistd::UnlinkatFlags::NoRemoveDir)?;
        self.dir.sync().map_err(Error::step(failed()))
    }

    /// Forgets the guest `name`.
    ///
    /// # Errors
    /// What the host says.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let removed = self.dir.remove(&format!("{name}.json"));
        let removed = removed.and_then(|()| self.dir.sync());
        removed.map_err(Error::step(format!("remove {}", path(name).display())))
    }
}
