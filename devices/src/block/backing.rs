//! The file or block device behind a disk: opens, locks and measures it.

use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Binary logarithm of [`SECTOR`].
pub(super) const SECTOR_SHIFT: u32 = 9;
/// Bytes of a sector, the unit of every address in the protocol.
pub const SECTOR: u64 = 1 << SECTOR_SHIFT;

/// The reason why a disk image cannot be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum BackingError {
    /// The image cannot be opened.
    #[error("cannot open the disk image {}{}", path.display(), hint(source))]
    Open {
        /// The image.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// The path is neither a regular file nor a block device.
    #[error("{} is neither a file nor a block device: name a raw disk image", path.display())]
    Kind {
        /// The image.
        path: PathBuf,
    },
    /// Another process has locked the image.
    #[error(
        "the disk image {} is in use by another process: a writable drive is one guest's alone, \
         a read-only one can be shared with `is_read_only`", path.display()
    )]
    InUse {
        /// The image.
        path: PathBuf,
    },
    /// The image cannot be locked or measured.
    #[error("cannot use the disk image {}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => " (create it, e.g. with `truncate -s 1G`)",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            " (or set `is_read_only`)"
        }
        _ => "",
    }
}

/// An open disk image, locked while it or a clone of it is open.
#[derive(Debug)]
pub struct Backing {
    file: File,
    sectors: u64,
}

impl Backing {
    /// Opens `path` and locks the open file: shared if `read_only`, else exclusively. The lock ends with the process,
    /// however it ends.
    ///
    /// # Errors
    /// [`BackingError`], naming `path`.
    pub fn open(path: &Path, read_only: bool) -> Result<Self, BackingError> {
        Self::locked(open_file(path, read_only)?, path, read_only)
    }

    /// Checks whether `path` can be opened, without locking it.
    ///
    /// # Errors
    /// [`BackingError`], naming `path`.
    pub fn look(path: &Path, read_only: bool) -> Result<(), BackingError> {
        open_file(path, read_only).map(drop)
    }

    /// Opens the file that is at `path` now, to replace this image. If it is the same file, the lock is kept and the size is
    /// measured again. Another file is locked while this one still is.
    ///
    /// # Errors
    /// [`BackingError`], naming `path`.
    pub fn replace(&self, path: &Path, read_only: bool) -> Result<Self, BackingError> {
        let identity = |file: &File| {
            let metadata = file.metadata()?;
            Ok((metadata.dev(), metadata.ino()))
        };
        let file = open_file(path, read_only)?;
        let same = identity(&file).and_then(|new| Ok(new == identity(&self.file)?));
        let io = |source| BackingError::Io {
            path: path.into(),
            source,
        };
        match same.map_err(io)? {
            true => Self::measured(self.file.try_clone().map_err(io)?, path),
            false => Self::locked(file, path, read_only),
        }
    }

    fn locked(file: File, path: &Path, read_only: bool) -> Result<Self, BackingError> {
        lock(&file, read_only).map_err(|source| match source {
            nix::Error::EAGAIN | nix::Error::EACCES => BackingError::InUse { path: path.into() },
            other => BackingError::Io {
                path: path.into(),
                source: other.into(),
            },
        })?;
        Self::measured(file, path)
    }

    fn measured(mut file: File, path: &Path) -> Result<Self, BackingError> {
        // The metadata of a block device has no length.
        let len = file
            .seek(SeekFrom::End(0))
            .map_err(|source| BackingError::Io {
                path: path.into(),
                source,
            })?;
        if !len.is_multiple_of(SECTOR) {
            log::warn!(
                "the disk image {} is not a multiple of 512 bytes: the guest does not see its last {} bytes",
                path.display(),
                len % SECTOR
            );
        }
        Ok(Self {
            file,
            sectors: len / SECTOR,
        })
    }

    /// Returns the size in sectors of 512 bytes.
    pub fn sectors(&self) -> u64 {
        self.sectors
    }

    /// Duplicates the handle; both share the lock.
    ///
    /// # Errors
    /// The process has no free descriptor.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            file: self.file.try_clone()?,
            sectors: self.sectors,
        })
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }
}

fn open_file(path: &Path, read_only: bool) -> Result<File, BackingError> {
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        // Opening a FIFO must not block.
        .custom_flags(libc::O_NONBLOCK)
        .open(path)
        .map_err(|source| BackingError::Open {
            path: path.into(),
            source,
        })?;
    let metadata = file.metadata().map_err(|source| BackingError::Io {
        path: path.into(),
        source,
    })?;
    let kind = metadata.file_type();
    match kind.is_file() || kind.is_block_device() {
        true => Ok(file),
        false => Err(BackingError::Kind { path: path.into() }),
    }
}

/// Locks the open file description. Unlike a process's lock, it is not lost when another descriptor of the file is
/// closed.
fn lock(file: &File, shared: bool) -> nix::Result<()> {
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    let whole = libc::flock {
        l_type: libc::c_short::try_from(kind).map_err(|_| nix::Error::EINVAL)?,
        l_whence: libc::c_short::try_from(libc::SEEK_SET).map_err(|_| nix::Error::EINVAL)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    fcntl(file, FcntlArg::F_OFD_SETLK(&whole)).map(drop)
}
