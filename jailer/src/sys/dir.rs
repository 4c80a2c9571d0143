//! Directories by descriptor.
//!
//! A guest's user may write to its jail between two runs, so nothing here follows a symbolic link in a jail or looks a
//! path up twice: names are single components, looked up in an open directory.

use crate::error::Error;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, linkat, unlinkat};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// User id.
    pub uid: Uid,
    /// Group id.
    pub gid: Gid,
}

/// The superuser.
pub const ROOT: Owner = Owner {
    uid: Uid::from_raw(0),
    gid: Gid::from_raw(0),
};

/// An open directory.
#[derive(Clone, Debug)]
pub struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

/// Flags that open a directory, but no symbolic link to one.
const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

impl Dir {
    /// Opens `path`, which the operator names, through symbolic links, too.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let fd = openat(nix::fcntl::AT_FDCWD, path, flags, Mode::empty())?;
        Ok(Self::new(fd, path.into()))
    }

    fn new(fd: OwnedFd, path: PathBuf) -> Self {
        Self {
            fd: Arc::new(fd),
            path,
        }
    }

    /// Returns the path by which it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory `name` in this one, or what is mounted there.
    ///
    /// # Errors
    /// `ENOTDIR` or `ELOOP` if it is not a directory.
    pub fn enter(&self, name: &str) -> io::Result<Self> {
        let fd = openat(&*self.fd, name, DIRECTORY, Mode::empty())?;
        Ok(Self::new(fd, self.path.join(name)))
    }

    /// As [`Self::enter`], but refuses what is mounted there, because it belongs to someone else.
    ///
    /// # Errors
    /// `EXDEV` if something is mounted there.
    pub fn enter_own(&self, name: &str) -> io::Result<Self> {
        let how = OpenHow::new().flags(DIRECTORY).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
        let fd = openat2(&*self.fd, name, how)?;
        Ok(Self::new(fd, self.path.join(name)))
    }

    /// Opens `name` with `O_PATH`: the descriptor can be examined and mounted, but not read.
    pub fn handle(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&*self.fd, name, flags, Mode::empty())?)
    }

    /// Sets the directory's own `mode` and `owner`.
    pub fn give(&self, mode: u32, owner: Owner) -> io::Result<()> {
        fchown(&*self.fd, Some(owner.uid), Some(owner.gid))?;
        fchmod(&*self.fd, Mode::from_bits_truncate(mode))?;
        Ok(())
    }

    /// Removes the file `name`.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&*self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes the file `name`, if there is one.
    ///
    /// # Errors
    /// [`Error`], if it is a directory, or something is mounted on it.
    pub fn remove_leftover(&self, name: &str) -> Result<(), Error> {
        match unlinkat(&*self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(Error::step(format!(
                "remove {}, which is in the way",
                self.path.join(name).display()
            ))(e)),
        }
    }

    /// Writes the file `name` with `mode`, whole or not at all: its bytes are on the disk under the name `temporary`
    /// before it gets its own. An existing file is replaced only if `replace` is set.
    ///
    /// # Errors
    /// `EEXIST` if there is a file `name` and `replace` is not set; or an error of the host.
    pub fn write_whole(
        &self,
        name: &str,
        temporary: &str,
        mode: u32,
        bytes: &[u8],
        replace: bool,
    ) -> io::Result<()> {
        absent_is_none(self.remove(temporary))?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&*self.fd, temporary, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let mut file = File::from(fd);
        let written = file.write_all(bytes).and_then(|()| {
            fchmod(&file, Mode::from_bits_truncate(mode))?;
            file.sync_all()?;
            match replace {
                true => Ok(renameat2(
                    &*self.fd,
                    temporary,
                    &*self.fd,
                    name,
                    RenameFlags::empty(),
                )?),
                false => self.rename_new(temporary, name),
            }
        });
        if written.is_err() {
            let _ = self.remove(temporary);
        }
        written
    }

    /// Renames `from` to `to`, if there is no `to`.
    pub fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let flags = RenameFlags::RENAME_NOREPLACE;
        match renameat2(&*self.fd, from, &*self.fd, to, flags) {
            // NFS has no RENAME_NOREPLACE, but link(2) does not replace a file either.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                linkat(&*self.fd, from, &*self.fd, to, AtFlags::empty())?;
                Ok(unlinkat(&*self.fd, from, UnlinkatFlags::NoRemoveDir)?)
            }
            other => Ok(other?),
        }
    }

    /// Links the file `name` as `new` in `to`, which is on the same file system.
    pub fn link(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        Ok(linkat(&*self.fd, name, &*to.fd, new, AtFlags::empty())?)
    }

    /// Waits until the directory's entries are on the disk.
    pub fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&*self.fd)?)
    }

    /// Returns the metadata of `name`, of a symbolic link itself.
    pub fn stat(&self, name: &str) -> io::Result<FileStat> {
        Ok(fstatat(&*self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// Returns the names in the directory, sorted. A name that is not UTF-8 is left out: no jailer made it.
    pub fn names(&self) -> io::Result<Vec<String>> {
        self.first_names(usize::MAX)
    }

    /// As [`Self::names`], but returns at most `most` names: a user who can write there can make any number.
    pub fn first_names(&self, most: usize) -> io::Result<Vec<String>> {
        let fd = openat(&*self.fd, ".", DIRECTORY, Mode::empty())?;
        let mut names = Vec::new();
        for entry in nix::dir::Dir::from_fd(fd)?.iter() {
            if names.len() == most {
                break;
            }
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// Returns the directory's own metadata.
    pub fn own_stat(&self) -> io::Result<FileStat> {
        Ok(fstat(&*self.fd)?)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Returns the file type in `stat`.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Returns a path to the open file `fd` that stays valid while `fd` is open, whatever happens to the file's name.
pub fn by_descriptor(fd: &impl AsFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}

/// Turns the error `NotFound` into `None`.
pub fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
