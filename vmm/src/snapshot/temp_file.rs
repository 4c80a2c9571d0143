//! A file that takes its place only when it is whole: written aside, on the disk before it is named.
//!
//! What is left of a writer that was killed has a fixed name, `NAME.partial`, and is written over by the next.

use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file that is being written. Dropped before [`TempFile::commit`] it is gone.
pub struct TempFile {
    file: Option<Flock<File>>,
    partial: PathBuf,
    path: PathBuf,
}

/// Where the file that will be `path` is written.
pub fn partial(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".partial");
    name.into()
}

/// The directory of `path`.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

impl TempFile {
    /// Starts the file that will be `path`, which no other process is writing.
    ///
    /// # Errors
    /// The host's; `WouldBlock` if another is writing it.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path.is_dir() {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let partial = partial(path);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
                .open(&partial)?;
            let file = Flock::lock(file, FlockArg::LockExclusiveNonblock)
                .map_err(|(_, e)| io::Error::from(e))?;
            // The one before may have taken its place, or gone, between the two calls.
            let here = std::fs::symlink_metadata(&partial);
            if here.is_ok_and(|here| Some(here.ino()) == file.metadata().ok().map(|m| m.ino())) {
                file.set_len(0)?;
                return Ok(Self {
                    file: Some(file),
                    partial,
                    path: path.into(),
                });
            }
        }
    }

    /// The file.
    ///
    /// # Errors
    /// None before [`Self::commit`].
    pub fn file(&self) -> io::Result<&File> {
        let file = self.file.as_deref();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Brings all that was written to the disk.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&self) -> io::Result<()> {
        self.file()?.sync_all()
    }

    /// Gives the file its place, for good.
    ///
    /// # Errors
    /// The host's. It has its place all the same if only the directory could not be brought to the disk.
    pub fn commit(mut self) -> io::Result<()> {
        std::fs::rename(&self.partial, &self.path)?;
        self.file = None;
        File::open(directory(&self.path))?.sync_all()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // If it cannot be removed it is written over by the next.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
#[path = "temp_file_test.rs"]
mod temp_file_test;
