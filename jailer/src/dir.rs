//! A directory held by its descriptor, and what is made in it.
//!
//! Jails are shared with the guest's user between two runs, so nothing here follows a symbolic link
//! in a jail or goes by a path twice: names are single components, looked up in an open directory.

use crate::error::Error;
use crate::undo::Undo;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, RenameFlags, ResolveFlag, openat, openat2, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, unlinkat};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A user and a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: Uid,
    /// The group.
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

/// Flags for a directory: never through a link.
const DIRECTORY: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

impl Dir {
    /// Opens `path`, which the operator names: links are followed.
    ///
    /// # Errors
    /// What the host says.
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

    /// Where it was when it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the directory `name` in this one, also if something is mounted there.
    ///
    /// # Errors
    /// What the host says; `ENOTDIR` or `ELOOP` if it is something else.
    pub fn enter(&self, name: &str) -> io::Result<Self> {
        let fd = openat(&*self.fd, name, DIRECTORY, Mode::empty())?;
        Ok(Self::new(fd, self.path.join(name)))
    }

    /// As [`Self::enter`], but not if something is mounted there, which is not ours to change.
    ///
    /// # Errors
    /// What the host says; `EXDEV` if something is mounted there.
    pub fn enter_own(&self, name: &str) -> io::Result<Self> {
        let how = OpenHow::new().flags(DIRECTORY).resolve(
            ResolveFlag::RESOLVE_BENEATH
                | ResolveFlag::RESOLVE_NO_SYMLINKS
                | ResolveFlag::RESOLVE_NO_XDEV,
        );
        let fd = openat2(&*self.fd, name, how)?;
        Ok(Self::new(fd, self.path.join(name)))
    }

    /// A descriptor of `name` that can only be looked at and mounted.
    ///
    /// # Errors
    /// What the host says.
    pub fn handle(&self, name: &str) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(openat(&*self.fd, name, flags, Mode::empty())?)
    }

    /// Opens the directory `name` in this one, or creates it with `mode`, the superuser's. What is
    /// there keeps its mode and owner.
    ///
    /// # Errors
    /// [`Error`], naming the directory.
    pub fn make_dir(&self, undo: &mut Undo, name: &str, mode: u32) -> Result<Self, Error> {
        let failed = || format!("make the directory {}", self.path.join(name).display());
        match mkdirat(&*self.fd, name, Mode::S_IRWXU) {
            Ok(()) => {
                self.record(undo, name, UnlinkatFlags::RemoveDir)?;
                let dir = self.enter(name).map_err(Error::step(failed()))?;
                dir.give(mode, ROOT).map_err(Error::step(failed()))?;
                Ok(dir)
            }
            Err(Errno::EEXIST) => self
                .enter(name)
                .map_err(Error::step(format!("{}; remove what is there", failed()))),
            Err(e) => Err(Error::step(failed())(e)),
        }
    }

    /// As [`Self::make_dir`], but what is there gets `mode` and `owner`, and another file system
    /// mounted there is refused, as it is not ours to change.
    ///
    /// # Errors
    /// [`Error`], naming the directory.
    pub fn make_own_dir(
        &self,
        undo: &mut Undo,
        name: &str,
        mode: u32,
        owner: Owner,
    ) -> Result<Self, Error> {
        let path = self.path.join(name);
        let failed = || format!("make the directory {}", path.display());
        match mkdirat(&*self.fd, name, Mode::S_IRWXU) {
            Ok(()) => self.record(undo, name, UnlinkatFlags::RemoveDir)?,
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(Error::step(failed())(e)),
        }
        let dir = self.enter_own(name).map_err(|e| {
            let way_out = match e.raw_os_error() {
                Some(libc::EXDEV) => "something is mounted there; unmount it",
                _ => "it must be a directory; remove what is there",
            };
            Error::step(format!("use {}: {way_out}", path.display()))(e)
        })?;
        dir.give(mode, owner).map_err(Error::step(failed()))?;
        Ok(dir)
    }

    /// Sets the directory's own `mode` and `owner`.
    ///
    /// # Errors
    /// What the host says.
    pub fn give(&self, mode: u32, owner: Owner) -> io::Result<()> {
        fchown(&*self.fd, Some(owner.uid), Some(owner.gid))?;
        fchmod(&*self.fd, Mode::from_bits_truncate(mode))?;
        Ok(())
    }

    /// Creates the file `name` with `mode` and `owner` in place of what a former run left, and
    /// fills it.
    ///
    /// # Errors
    /// [`Error`], naming the file.
    pub fn make_file(
        &self,
        undo: &mut Undo,
        name: &str,
        mode: u32,
        owner: Owner,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), Error> {
        let failed = || format!("write {}", self.path.join(name).display());
        self.remove_leftover(name)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&*self.fd, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
            .map_err(Error::step(failed()))?;
        self.record(undo, name, UnlinkatFlags::NoRemoveDir)?;
        let mut file = File::from(fd);
        let filled = fill(&mut file).and_then(|()| {
            fchown(&file, Some(owner.uid), Some(owner.gid))?;
            fchmod(&file, Mode::from_bits_truncate(mode))?;
            Ok(())
        });
        filled.map_err(Error::step(failed()))
    }

    /// Makes sure that there is a regular file `name` to mount another one on. What a former run or
    /// a client put there stays.
    ///
    /// # Errors
    /// [`Error`], naming the file.
    pub fn make_placeholder(&self, undo: &mut Undo, name: &str) -> Result<(), Error> {
        match self.stat(name) {
            Ok(stat) if kind(&stat) == SFlag::S_IFREG => Ok(()),
            _ => self.make_file(undo, name, 0o600, ROOT, |_| Ok(())),
        }
    }

    /// Creates the character device `name` with number `device`, mode 0600 and `owner`, in place
    /// of what a former run left.
    ///
    /// # Errors
    /// [`Error`], naming the device.
    pub fn make_device(
        &self,
        undo: &mut Undo,
        name: &str,
        device: libc::dev_t,
        owner: Owner,
    ) -> Result<(), Error> {
        let failed = || {
            format!(
                "make the device node {}; may this system make device nodes?",
                self.path.join(name).display()
            )
        };
        self.remove_leftover(name)?;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknodat(&*self.fd, name, SFlag::S_IFCHR, mode, device).map_err(Error::step(failed()))?;
        self.record(undo, name, UnlinkatFlags::NoRemoveDir)?;
        let (uid, gid) = (Some(owner.uid), Some(owner.gid));
        fchownat(&*self.fd, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
            .map_err(Error::step(failed()))
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    /// What the host says.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&*self.fd, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// Removes the file `name`, if there is one.
    ///
    /// # Errors
    /// [`Error`], naming the file: it is a directory, or something is mounted on it.
    pub fn remove_leftover(&self, name: &str) -> Result<(), Error> {
        match unlinkat(&*self.fd, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(e) => Err(Error::step(format!(
                "remove {}, which is in the way",
                self.path.join(name).display()
            ))(e)),
        }
    }

    /// Renames `from` to `to`, if there is no `to`.
    ///
    /// # Errors
    /// What the host says.
    pub fn rename_new(&self, from: &str, to: &str) -> io::Result<()> {
        let flags = RenameFlags::RENAME_NOREPLACE;
        match renameat2(&*self.fd, from, &*self.fd, to, flags) {
            // NFS cannot; a second name does not replace one either.
            Err(Errno::EINVAL | Errno::ENOSYS) => {
                linkat(&*self.fd, from, &*self.fd, to, AtFlags::empty())?;
                Ok(unlinkat(&*self.fd, from, UnlinkatFlags::NoRemoveDir)?)
            }
            other => Ok(other?),
        }
    }

    /// Gives what is called `name` here the name `new` in `to`, too, on the same file system.
    ///
    /// # Errors
    /// What the host says.
    pub fn link(&self, name: &str, to: &Self, new: &str) -> io::Result<()> {
        Ok(linkat(&*self.fd, name, &*to.fd, new, AtFlags::empty())?)
    }

    /// Waits until its entries are on the disk.
    ///
    /// # Errors
    /// What the host says.
    pub fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&*self.fd)?)
    }

    /// What `name` is, itself if it is a link.
    ///
    /// # Errors
    /// What the host says.
    pub fn stat(&self, name: &str) -> io::Result<FileStat> {
        Ok(fstatat(&*self.fd, name, AtFlags::AT_SYMLINK_NOFOLLOW)?)
    }

    /// The names in the directory, in order. One that is no text is left out: nobody here made it.
    ///
    /// # Errors
    /// What the host says.
    pub fn names(&self) -> io::Result<Vec<String>> {
        self.first_names(usize::MAX)
    }

    /// As [`Self::names`], but at most `most` of them, whichever come first: who can write there can
    /// make any number.
    ///
    /// # Errors
    /// What the host says.
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

    /// Records that this run made `name`.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub fn record(&self, undo: &mut Undo, name: &str, how: UnlinkatFlags) -> Result<(), Error> {
        let (dir, name) = (self.clone(), name.to_owned());
        undo.made(self.path.join(&name).display().to_string(), move || {
            Ok(unlinkat(&*dir.fd, name.as_str(), how)?)
        })
    }

    /// The directory's own mode and owner.
    ///
    /// # Errors
    /// What the host says.
    pub fn own_stat(&self) -> io::Result<FileStat> {
        Ok(fstat(&*self.fd)?)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The kind of file that `stat` tells of.
pub fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// A path that leads to the open file `fd`, whatever became of its name, for as long as it is open.
pub fn by_descriptor(fd: &impl AsFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()).into()
}
