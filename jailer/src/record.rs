//! What a start makes outside the jail's directory and what outlives its process, written down before
//! it is made, so that `jailer clean` and the next start can remove what a crash left.
//!
//! The record is in `/run/bantam/jails`, which the superuser alone writes, and which a restart of the
//! host empties, as it does away with control groups, rules and bridges.

use crate::cgroup;
use crate::dir::Dir;
use crate::error::Error;
use crate::state;
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::{FileStat, Mode};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

/// Longest record that is read, in bytes: a hundred interfaces and drives have room.
const MAX_BYTES: u64 = 1 << 20;

/// What was, or was about to be, made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Network namespace that bridges and tables are in, if not the host's.
    pub netns: Option<PathBuf>,
    /// Directories of control groups.
    #[serde(default)]
    pub cgroups: Vec<PathBuf>,
    /// Tables of packet filter rules.
    #[serde(default)]
    pub tables: Vec<String>,
    /// Bridges that a jailer made; they go with their last guest.
    #[serde(default)]
    pub bridges: Vec<String>,
    /// Images that no guest has had yet.
    #[serde(default)]
    pub images: Vec<Image>,
}

/// An image as it was when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Image {
    /// Its name, or the one it is to get.
    pub path: PathBuf,
    /// Its file system.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// When it was last written: seconds, nanoseconds.
    pub written: (i64, i64),
}

impl Image {
    /// The image `path`, which is as `stat` tells.
    pub fn new(path: PathBuf, stat: &FileStat) -> Self {
        Self {
            path,
            device: stat.st_dev,
            inode: stat.st_ino,
            written: (stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    /// Removes it, if it is still what it was: nobody has written it.
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

/// The record of one guest's jail, which the holder of the jail's lock may change.
#[derive(Debug)]
pub struct Record {
    directory: Dir,
    name: String,
    made: Made,
}

impl Record {
    /// Reads the record of the jail of `options`: what a former start left.
    ///
    /// # Errors
    /// [`Error`], naming the file.
    pub fn open(base: &Path, exec_name: &str, id: &str) -> Result<Self, Error> {
        let directory = state::directory("jails")?;
        // However it is written, from whatever directory.
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

    /// What is in it.
    pub fn made(&self) -> &Made {
        &self.made
    }

    /// Replaces what is in it.
    ///
    /// # Errors
    /// [`Error`], naming the file.
    pub fn write(&mut self, made: Made) -> Result<(), Error> {
        if made == self.made {
            return Ok(());
        }
        self.made = made;
        let shown = self.directory.path().join(&self.name);
        let written = if self.made == Made::default() {
            self.remove()
        } else {
            self.write_aside()
        };
        written.map_err(Error::step(format!("write {}", shown.display())))
    }

    fn write_aside(&self) -> io::Result<()> {
        let aside = format!("{}.new", self.name);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = openat(
            &self.directory,
            aside.as_str(),
            flags | OFlag::O_NOFOLLOW,
            mode,
        )?;
        File::from(file).write_all(&serde_json::to_vec(&self.made)?)?;
        let (dir, none) = (&self.directory, RenameFlags::empty());
        Ok(renameat2(
            dir,
            aside.as_str(),
            dir,
            self.name.as_str(),
            none,
        )?)
    }

    /// The file into which a byte is written when the VMM is about to run, if images are in the record:
    /// from then on they are the guest's, and are not removed.
    ///
    /// # Errors
    /// [`Error`], naming the file.
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

    /// Whether the images are a guest's that has run.
    fn handed_over(&self) -> io::Result<bool> {
        match self.directory.stat(&self.handover_name()) {
            Ok(stat) => Ok(stat.st_size > 0),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn remove(&self) -> io::Result<()> {
        let own = format!("{}.new", self.name);
        for name in [self.name.clone(), own, self.handover_name()] {
            match unlinkat(&self.directory, name.as_str(), UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    }

    /// Removes the images that no guest has had. Before a start they are whole, and are used instead.
    ///
    /// # Errors
    /// [`Error`], naming the first that could not be removed.
    pub fn remove_images(&self) -> Result<(), Error> {
        let shown = self.directory.path().join(self.handover_name());
        let handed_over = self
            .handed_over()
            .map_err(Error::step(format!("look at {}", shown.display())))?;
        for image in self.made.images.iter().filter(|_| !handed_over) {
            let shown = image.path.display();
            ignore_absent(image.remove()).map_err(Error::step(format!(
                "remove the image {shown}, which no guest has had"
            )))?;
        }
        Ok(())
    }

    /// Removes everything else that is in it, and then the record. `network` removes what is in the network.
    ///
    /// # Errors
    /// [`Error`], naming the first that could not be removed; the record stands, to try again.
    pub fn clear(&mut self, network: impl FnOnce(&Made) -> Result<(), Error>) -> Result<(), Error> {
        for group in &self.made.cgroups {
            ignore_absent(cgroup::remove_left(group)).map_err(Error::step(format!(
                "remove the control group {}",
                group.display()
            )))?;
        }
        network(&self.made)?;
        self.write(Made::default())
    }
}

fn ignore_absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
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

/// FNV-1a of the directory's name, so that guests of one name in two places have two records.
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
