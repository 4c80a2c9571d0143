//! New volumes: an image in a directory, empty or copied from another image, for a guest's drive or `bantamctl volume`.
//!
//! It gets its name when it is complete, so that a killed jailer leaves no partial image. It never replaces a file.

use crate::error::Error;
use crate::storage::copy::Source;
use crate::storage::{lock, qcow2};
use crate::sys::dir::{Dir, Owner, by_descriptor};
use crate::undo::Undo;
use crate::undo::record::Image;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, OFlag, fallocate, openat};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, fchown, linkat, unlinkat};
use resources::{Drive, Problem};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// Size of a disk's sector, in bytes.
const SECTOR: u64 = 512;

/// The initial contents of a volume.
#[derive(Debug)]
pub enum Content {
    /// Zeroes.
    Empty,
    /// A copy of an image.
    Copy(Source),
    /// The disk in a qcow2 image; it has [`Source::size`] bytes.
    Qcow2(Source),
}

impl Content {
    fn source(&self) -> Option<&Source> {
        match self {
            Self::Empty => None,
            Self::Copy(source) | Self::Qcow2(source) => Some(source),
        }
    }
}

/// A request for a new volume in a pool of any type or in a directory.
#[derive(Debug)]
pub struct VolumeRequest {
    /// The key or the command that asks for it, for messages.
    pub key: String,
    /// Size in bytes, a multiple of [`SECTOR`].
    pub size: u64,
    /// Its initial contents.
    pub content: Content,
    /// Whether all its space is allocated at once.
    pub preallocate: bool,
}

impl VolumeRequest {
    /// Returns the volume for `content` with `size`, which `key`'s `field` gives in bytes; the default is the content's
    /// size.
    ///
    /// # Errors
    /// [`Problem`], if the content does not fit.
    pub fn new(
        key: &str,
        field: &str,
        size: Option<u64>,
        content: Content,
    ) -> Result<Self, Problem> {
        let least = content.source().map_or(0, |source| source.size);
        let size = size.unwrap_or_else(|| least.next_multiple_of(SECTOR));
        if size < least {
            let mib = least.div_ceil(1 << 20);
            let message = format!("is less than the {mib} MiB of its template");
            return Err(Problem::new(field, message));
        }
        Ok(Self {
            key: key.into(),
            size,
            content,
            preallocate: false,
        })
    }

    /// Returns the missing volume that `drive` at `key` asks for; `None` if there are new `problems`.
    pub fn by_drive(key: &str, drive: &Drive, problems: &mut Vec<Problem>) -> Option<Self> {
        let content = match &drive.template {
            None => Content::Empty,
            Some(path) => match Source::open(path) {
                Ok(source) => Content::Copy(source),
                Err(message) => {
                    problems.push(Problem::new(format!("{key}.template"), message));
                    return None;
                }
            },
        };
        if drive.size_mib.is_none() && drive.template.is_none() {
            let shown = drive.path_on_host.clone().unwrap_or_default();
            let message = format!(
                "{} does not exist: create it, or add `size_mib` and the jailer will",
                shown.display()
            );
            problems.push(Problem::new(format!("{key}.path_on_host"), message));
            return None;
        }
        let size = drive.size_mib.map(|mib| mib << 20);
        Self::new(key, &format!("{key}.size_mib"), size, content)
            .map_err(|problem| problems.push(problem))
            .ok()
    }
}

/// An image to make.
#[derive(Debug)]
pub struct NewVolume {
    request: VolumeRequest,
    /// Its future path.
    pub path: PathBuf,
    directory: Dir,
    name: String,
}

impl NewVolume {
    /// Checks that the missing image `path` of `drive` can be made; returns `None` if there are new `problems`.
    pub fn check(
        key: &str,
        drive: &Drive,
        path: PathBuf,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let field = format!("{key}.path_on_host");
        let request = VolumeRequest::by_drive(key, drive, problems);
        let mut wrong = |message: String| problems.push(Problem::new(&field, message));
        let shown = path.display();
        let directory = open_parent(&path)
            .map_err(|e| {
                wrong(format!(
                    "cannot create {shown}: its directory: {e}; `mkdir -p` it"
                ));
            })
            .ok();
        let name = path.file_name().and_then(|name| name.to_str());
        let Some(name) = name.map(str::to_owned) else {
            wrong(format!("{shown} is not the name of a file"));
            return None;
        };
        Self::new(directory?, &name, &field, request?)
            .map_err(|problem| problems.push(problem))
            .ok()
    }

    /// Returns the image `name` in `directory`.
    ///
    /// # Errors
    /// [`Problem`] with `field`, if there is no room for it.
    pub fn new(
        directory: Dir,
        name: &str,
        field: &str,
        request: VolumeRequest,
    ) -> Result<Self, Problem> {
        let path = directory.path().join(name);
        if let Some(message) = no_room(&directory, &request) {
            let message = format!("cannot create {}: {message}", path.display());
            return Err(Problem::new(field, message));
        }
        Ok(Self {
            request,
            path,
            directory,
            name: name.into(),
        })
    }

    /// Makes it with mode 0600 for `owner`; it is on the disk when this returns.
    pub fn create(self, owner: Owner, undo: &mut Undo) -> Result<OwnedFd, Error> {
        let shown = self.path.display();
        let failed =
            |what: String| Error::step::<io::Error>(format!("{what} ({})", self.request.key));
        let (file, temporary) = self
            .open_unnamed()
            .map_err(failed(format!("create the image {shown}")))?;
        if let Some(name) = &temporary {
            self.directory
                .record(undo, name, UnlinkatFlags::NoRemoveDir)?;
        }
        match &self.request.content {
            Content::Empty => {}
            Content::Copy(source) => {
                let from = source.path.display();
                source
                    .copy_to(&file, undo)?
                    .map_err(failed(format!("copy {from} to {shown}")))?;
            }
            Content::Qcow2(source) => qcow2::convert(source, qcow2::Target::File(&file), undo)?,
        }
        let size = self.request.size;
        let finished = file
            .set_len(size)
            .and_then(|()| match self.request.preallocate {
                true => allocate(&file, size),
                false => Ok(()),
            })
            .and_then(|()| Ok(fchown(&file, Some(owner.uid), Some(owner.gid))?))
            .and_then(|()| Ok(fchmod(&file, Mode::S_IRUSR | Mode::S_IWUSR)?))
            .and_then(|()| file.sync_all());
        let mib = size >> 20;
        finished.map_err(failed(format!("make the image {shown} of {mib} MiB")))?;
        undo.checkpoint()?;

        let path = std::path::absolute(&self.path);
        let image = path.and_then(|path| Ok(Image::new(path, &fstat(&file)?)));
        let image = image.map_err(failed(format!("examine the image {shown}")))?;
        undo.announce(|made| made.images.push(image))?;
        self.name_it(&file, temporary.as_deref())
            .map_err(failed(format!("name the image {shown}")))?;
        self.record_named(&file, undo)?;
        let synced = nix::unistd::fsync(&self.directory).map_err(io::Error::from);
        synced.map_err(failed(format!("write the directory of {shown}")))?;
        self.reopen(&file)
            .map_err(failed(format!("reopen the image {shown}")))
    }

    /// Opens a file without a name, or with a temporary one if the file system has no files without names.
    fn open_unnamed(&self) -> io::Result<(File, Option<String>)> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match openat(&self.directory, ".", flags | OFlag::O_TMPFILE, mode) {
            Ok(fd) => return Ok((fd.into(), None)),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {}
            Err(e) => return Err(e.into()),
        }
        self.remove_partial();
        let name = format!(".{}.{}.new", self.name, std::process::id());
        let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let file: File = openat(&self.directory, name.as_str(), flags, mode)?.into();
        // The lock shows other processes that this file is not a leftover.
        let _ = lock::lock(&file, false);
        Ok((file, Some(name)))
    }

    /// Removes partial files of this image that a killed process has left: no process locks them.
    fn remove_partial(&self) {
        let prefix = format!(".{}.", self.name);
        let entries = std::fs::read_dir(by_descriptor(&self.directory));
        let names = entries.into_iter().flatten().flatten();
        let names = names.filter_map(|entry| entry.file_name().into_string().ok());
        for name in names.filter(|name| name.starts_with(&prefix) && name.ends_with(".new")) {
            let number = name.get(prefix.len()..name.len() - ".new".len());
            let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
            let opened = openat(&self.directory, name.as_str(), flags, Mode::empty());
            if number.is_some_and(|number| number.parse::<u32>().is_ok())
                && opened.is_ok_and(|fd| matches!(lock::lock(&fd.into(), false), Ok(true)))
            {
                let _ = self.directory.remove(&name);
            }
        }
    }

    fn name_it(&self, file: &File, temporary: Option<&str>) -> io::Result<()> {
        let (dir, name) = (&self.directory, self.name.as_str());
        match temporary {
            None => {
                let flags = AtFlags::AT_SYMLINK_FOLLOW;
                linkat(AT_FDCWD, &by_descriptor(file), dir, name, flags)?;
            }
            Some(from) => dir.rename_new(from, name)?,
        }
        Ok(())
    }

    /// Opens the file by its name, so that it can be mounted. It must be the file made here.
    fn reopen(&self, made: &File) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.directory, self.name.as_str(), flags, Mode::empty())?;
        let (made, there) = (fstat(made)?, fstat(&fd)?);
        if (there.st_dev, there.st_ino) != (made.st_dev, made.st_ino) {
            return Err(io::Error::other("another file has replaced it"));
        }
        Ok(fd)
    }

    /// Records the file. Undoing removes it only if the name still leads to the file made here.
    fn record_named(&self, file: &File, undo: &mut Undo) -> Result<(), Error> {
        // Held open, so that no other file gets its inode number.
        let held = file.try_clone();
        let held = held.map_err(Error::step(format!("hold {}", self.path.display())))?;
        let (dir, name) = (self.directory.clone(), self.name.clone());
        undo.made(self.path.display().to_string(), move || {
            let (made, there) = (fstat(&held)?, dir.stat(&name)?);
            if (there.st_dev, there.st_ino) == (made.st_dev, made.st_ino) {
                unlinkat(&dir, name.as_str(), UnlinkatFlags::NoRemoveDir)?;
            }
            Ok(())
        })
    }
}

fn open_parent(path: &Path) -> io::Result<Dir> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty());
    let directory = Dir::open(parent.unwrap_or(Path::new(".")))?;
    let flags = AtFlags::AT_EACCESS;
    nix::unistd::faccessat(&directory, ".", nix::unistd::AccessFlags::W_OK, flags)?;
    Ok(directory)
}

/// Allocates the space of all of `file`.
fn allocate(file: &File, size: u64) -> io::Result<()> {
    let len = i64::try_from(size).map_err(io::Error::other)?;
    fallocate(file, FallocateFlags::empty(), 0, len).map_err(|e| match e {
        Errno::EOPNOTSUPP => {
            let message = "this file system cannot preallocate: leave the option out";
            io::Error::new(io::ErrorKind::Unsupported, message)
        }
        e => e.into(),
    })
}

/// Returns a message if the volume needs more space than is known to be free.
fn no_room(directory: &Dir, request: &VolumeRequest) -> Option<String> {
    let needed = match &request.content {
        _ if request.preallocate => request.size,
        Content::Copy(source) => {
            let (from, to) = (fstat(&source.file).ok()?, directory.own_stat().ok()?);
            if from.st_dev == to.st_dev {
                // The blocks may be shared; only the attempt will show it.
                return None;
            }
            u64::try_from(from.st_blocks).ok()?.checked_mul(512)?
        }
        Content::Empty | Content::Qcow2(_) => return None,
    };
    let space = fstatvfs(directory).ok()?;
    let free = space
        .blocks_available()
        .checked_mul(space.fragment_size())?;
    (needed > free).then(|| {
        format!(
            "it needs {} MiB and {} MiB are free",
            needed >> 20,
            free >> 20
        )
    })
}

#[cfg(test)]
#[path = "volume_test.rs"]
mod volume_test;
