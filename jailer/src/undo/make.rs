//! Directories, files and device nodes that are recorded in the undo list as they are made.

use crate::error::Error;
use crate::sys::dir::{Dir, Owner, ROOT, kind};
use crate::undo::list::Undo;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, fchown, fchownat, unlinkat};
use std::fs::File;
use std::io;
use std::path::Path;

impl Dir {
    /// Opens the directory `name` in this one, or makes it with `mode`, owned by root. An existing directory keeps its
    /// mode and owner.
    pub fn make_dir(&self, undo: &mut Undo, name: &str, mode: u32) -> Result<Self, Error> {
        let failed = || format!("make the directory {}", self.path().join(name).display());
        match mkdirat(self, name, Mode::S_IRWXU) {
            Ok(()) => {
                self.record(undo, name, UnlinkatFlags::RemoveDir)?;
                let dir = self.enter(name).map_err(Error::step(failed()))?;
                dir.give(mode, ROOT).map_err(Error::step(failed()))?;
                Ok(dir)
            }
            Err(Errno::EEXIST) => self.enter(name).map_err(Error::step(format!(
                "{}; remove the file in its place",
                failed()
            ))),
            Err(e) => Err(Error::step(failed())(e)),
        }
    }

    /// As [`Self::make_dir`], but an existing directory gets `mode` and `owner`, too, and a file system that is mounted
    /// there is refused.
    pub fn make_own_dir(
        &self,
        undo: &mut Undo,
        name: &str,
        mode: u32,
        owner: Owner,
    ) -> Result<Self, Error> {
        let path = self.path().join(name);
        let failed = || format!("make the directory {}", path.display());
        match mkdirat(self, name, Mode::S_IRWXU) {
            Ok(()) => self.record(undo, name, UnlinkatFlags::RemoveDir)?,
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(Error::step(failed())(e)),
        }
        let dir = self.enter_own(name).map_err(|e| {
            let way_out = match e.raw_os_error() {
                Some(libc::EXDEV) => "something is mounted there; unmount it",
                _ => "it must be a directory; remove the file in its place",
            };
            Error::step(format!("use {}: {way_out}", path.display()))(e)
        })?;
        dir.give(mode, owner).map_err(Error::step(failed()))?;
        Ok(dir)
    }

    /// Creates the file `name` with `mode` and `owner` in place of a leftover, and fills it.
    pub fn make_file(
        &self,
        undo: &mut Undo,
        name: &str,
        mode: u32,
        owner: Owner,
        fill: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> Result<(), Error> {
        let failed = || format!("write {}", self.path().join(name).display());
        self.remove_leftover(name)?;
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(self, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)
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

    /// Makes the regular file `name` to mount another one on, unless a former run or a client left one.
    pub fn make_placeholder(&self, undo: &mut Undo, name: &str) -> Result<(), Error> {
        match self.stat(name) {
            Ok(stat) if kind(&stat) == SFlag::S_IFREG => Ok(()),
            _ => self.make_file(undo, name, 0o600, ROOT, |_| Ok(())),
        }
    }

    /// Creates the character device `name` with the number `device`, mode 0600 and `owner`, in place of a leftover.
    pub fn make_device(
        &self,
        undo: &mut Undo,
        name: &str,
        device: libc::dev_t,
        owner: Owner,
    ) -> Result<(), Error> {
        let failed = || {
            format!(
                "make the device node {}; is this system allowed to make device nodes?",
                self.path().join(name).display()
            )
        };
        self.remove_leftover(name)?;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        mknodat(self, name, SFlag::S_IFCHR, mode, device).map_err(Error::step(failed()))?;
        self.record(undo, name, UnlinkatFlags::NoRemoveDir)?;
        let (uid, gid) = (Some(owner.uid), Some(owner.gid));
        fchownat(self, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(Error::step(failed()))
    }

    /// Records that `name` was made.
    pub fn record(&self, undo: &mut Undo, name: &str, how: UnlinkatFlags) -> Result<(), Error> {
        let (dir, name) = (self.clone(), name.to_owned());
        undo.made(self.path().join(&name).display().to_string(), move || {
            Ok(unlinkat(&dir, name.as_str(), how)?)
        })
    }
}

/// Opens the directory `path`. If it or a directory above it is missing, it is made with `mode`, owned by root.
pub fn directories(path: &Path, mode: u32, undo: &mut Undo) -> Result<Dir, Error> {
    let missing: Vec<_> = path.ancestors().take_while(|p| !p.exists()).collect();
    for path in missing.into_iter().rev() {
        let parent = Dir::open(path.parent().unwrap_or(Path::new("/")));
        let parent = parent.map_err(Error::step(format!("make {}", path.display())))?;
        let name = path.file_name().and_then(|name| name.to_str());
        parent.make_dir(undo, name.unwrap_or_default(), mode)?;
    }
    Dir::open(path).map_err(Error::step(format!("open {}", path.display())))
}

/// As [`directories`], for a directory that all commands share: it stays even if this command fails.
pub fn shared_directories(path: &Path, mode: u32) -> Result<Dir, Error> {
    let mut undo = Undo::uninterrupted();
    let made = directories(path, mode, &mut undo);
    undo.keep();
    made
}
