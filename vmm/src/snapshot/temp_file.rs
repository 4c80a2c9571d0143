//! A file that is written under a temporary name, synced, and renamed when it is complete.
//!
//! The temporary name is `NAME.partial`. The next writer overwrites what a killed writer left there.

use nix::fcntl::{Flock, FlockArg};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// A file under its temporary name. It is removed if it is dropped before [`TempFile::commit`].
pub struct TempFile {
    file: Option<Flock<File>>,
    partial: PathBuf,
    path: PathBuf,
}

/// Returns the temporary name of the file `path`.
pub fn partial(path: &Path) -> PathBuf {
    let mut name: OsString = path.into();
    name.push(".partial");
    name.into()
}

/// Returns the directory of `path`.
fn directory(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

impl TempFile {
    /// Creates the temporary file for `path` and locks it.
    ///
    /// # Errors
    /// The file cannot be created; `WouldBlock` if another process is writing it.
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
            // The file may have been renamed or removed between opening and locking it.
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

    /// Returns the file.
    ///
    /// # Errors
    /// None before [`Self::commit`].
    pub fn file(&self) -> io::Result<&File> {
        let file = self.file.as_deref();
        file.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Syncs the file to the disk.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync(&self) -> io::Result<()> {
        self.file()?.sync_all()
    }

    /// Renames the file to its final name.
    ///
    /// # Errors
    /// The host refused the rename. If only the directory could not be synced, the file has its final name.
    pub fn commit(mut self) -> io::Result<()> {
        std::fs::rename(&self.partial, &self.path)?;
        self.file = None;
        File::open(directory(&self.path))?.sync_all()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if self.file.is_some() {
            // A file that cannot be removed is overwritten by the next writer.
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}

#[cfg(test)]
#[path = "temp_file_test.rs"]
mod temp_file_test;
