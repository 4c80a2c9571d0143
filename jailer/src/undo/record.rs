//! The record of a jail: what a start makes outside the jail's directory and what outlives its process. It is written
//! before the thing is made, so that `jailer clean` and the next start can remove what a crash left.
//!
//! Records are in `/run/bantam/jails`, where root alone writes. A reboot empties that directory, as it removes control
//! groups, packet filter rules and bridges.

use crate::error::Error;
use crate::sys::dir::{Dir, absent_is_none};
use crate::undo::state;
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Longest record that is read, in bytes; a hundred interfaces and drives fit.
const MAX_BYTES: u64 = 1 << 20;

/// The things that were made, or were about to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Network namespace of the bridges and tables, if not the host's.
    pub netns: Option<PathBuf>,
    /// Directories of control groups.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// Tables of packet filter rules.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Bridges that a jailer made; they are removed with their last guest.
    #[serde(default)]
    pub bridges: Vec<String>,
    /// New images that no guest has used yet.
    #[serde(default)]
    pub images: Vec<Image>,
}

/// An image as it was when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its path, or the path it will get.
    pub path: PathBuf,
    /// Device number of its file system.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Time of the last change: seconds, nanoseconds.
    pub written: (i64, i64),
}

impl Image {
    /// Returns the image `path`, whose metadata is `stat`.
    pub fn new(path: PathBuf, stat: &FileStat) -> Self {
        Self {
            path,
            device: stat.st_dev,
            inode: stat.st_ino,
            written: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    /// Removes it, if no one has written to it or replaced it.
    fn remove(&self) -> io::Result<()> {
        let (Some(parent), Some(name)) = (self.path.parent(), self.path.file_name()) else {
            return Ok(());
        };
        let (parent, name) = (Dir::open(parent)?, name.to_string_lossy());
        let now = Self::new(self.path.clone(), &parent.stat(&name)?);
        if now != *self {
            return Ok(());
        }
        parent.remove(&name)
    }
}

/// The record of one guest's jail. Only the holder of the jail's lock may change it.
#[derive(Debug)]
pub struct Record {
    directory: Dir,
    name: String,
    made: Made,
}

impl Record {
    /// Reads the record that a former start of the guest `id` left.
    pub fn open(base: &Path, exec_name: &str, id: &str) -> Result<Self, Error> {
        let directory = state::directory("jails")?;
        // The same directory may be named in several ways.
        let base = base.canonicalize().unwrap_or_else(|_| base.to_owned());
        let name = format!("{id}.{:016x}", fingerprint(&base.join(exec_name)));
        let path = directory.path().join(&name);
        let made = read(&directory, &name);
        let made = made.map_err(Error::step(format!("read {}", path.display())))?;
        Ok(Self {
            directory,
            name,
            made,
        })
    }

    /// Returns the contents.
    pub fn made(&self) -> &Made {
        &self.made
    }

    /// Replaces the contents.
    pub fn write(&mut self, made: Made) -> Result<(), Error> {
        if made == self.made {
            return Ok(());
        }
        self.made = made;
        let shown = self.directory.path().join(&self.name);
        let written = if self.made == Made::default() {
            self.remove()
        } else {
            let temporary = format!("{}.new", self.name);
            let bytes = serde_json::to_vec(&self.made).map_err(io::Error::from);
            bytes.and_then(|bytes| {
                let dir = &self.directory;
                dir.write_whole(&self.name, &temporary, 0o600, &bytes, true)
            })
        };
        written.map_err(Error::step(format!("write {}", shown.display())))
    }

    /// Returns the file to which a byte is written just before the monitor runs, if the record has images: from then on
    /// they belong to the guest, and are not removed.
    pub fn handover(&self) -> Result<Option<File>, Error> {
        if self.made.images.is_empty() {
            return Ok(None);
        }
        let name = self.handover_name();
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(
            &self.directory,
            name.as_str(),
            flags | OFlag::O_NOFOLLOW,
            mode,
        );
        let shown = self.directory.path().join(&name);
        let file = file.map_err(Error::step(format!("write {}", shown.display())))?;
        Ok(Some(file.into()))
    }

    fn handover_name(&self) -> String {
        format!("{}.started", self.name)
    }

    /// Returns whether a guest has used the images.
    fn handed_over(&self) -> io::Result<bool> {
        let stat = absent_is_none(self.directory.stat(&self.handover_name()))?;
        Ok(stat.is_some_and(|stat| stat.st_size > 0))
    }

    fn remove(&self) -> io::Result<()> {
        let own = format!("{}.new", self.name);
        for name in [self.name.clone(), own, self.handover_name()] {
            absent_is_none(self.directory.remove(&name))?;
        }
        Ok(())
    }

    /// Removes the images that no guest has used. The next start would use them, because they are complete.
    ///
    /// # Errors
    /// [`Error`], naming the first that could not be removed.
    pub fn remove_images(&self) -> Result<(), Error> {
        let shown = self.directory.path().join(self.handover_name());
        let handed_over = self
            .handed_over()
            .map_err(Error::step(format!("examine {}", shown.display())))?;
        for image in self.made.images.iter().filter(|_| !handed_over) {
            let shown = image.path.display();
            absent_is_none(image.remove()).map_err(Error::step(format!(
                "remove the image {shown}, which no guest has used"
            )))?;
        }
        Ok(())
    }

    /// Calls `remove` for everything else in the record, then removes the record.
    ///
    /// # Errors
    /// [`Error`], naming the first that could not be removed; the record stays, so that the caller can try again.
    pub fn clear(&mut self, remove: impl FnOnce(&Made) -> Result<(), Error>) -> Result<(), Error> {
        remove(&self.made)?;
        self.write(Made::default())
    }
}

fn read(directory: &Dir, name: &str) -> io::Result<Made> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::ENOENT) => return Ok(Made::default()),
        Err(e) => return Err(e.into()),
    };
    let mut text = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

/// Returns the FNV-1a hash of `path`, so that guests of one name in two directories have two records.
pub fn fingerprint(path: &Path) -> u64 {
    use std::os::unix::ffi::OsStrExt as _;
    let bytes = path.as_os_str().as_bytes().iter();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
#[path = "record_test.rs"]
mod record_test;
