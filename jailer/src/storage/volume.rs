//! A volume that does not exist yet: an image in a directory, empty or from a template.
//!
//! It appears under its name only when it is whole, so that a jailer killed on the way leaves no
//! half of one, and never in place of a file that came there meanwhile.

use crate::dir::{Dir, Owner, by_descriptor};
use crate::error::Error;
use crate::record::Image;
use crate::undo::Undo;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, RenameFlags, copy_file_range, openat, renameat2};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{UnlinkatFlags, Whence, fchown, linkat, lseek, unlinkat};
use resources::{Drive, Problem};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Bytes copied between two looks for a signal.
const COPY_CHUNK: u64 = 64 << 20;
/// Disks are made of sectors of this size, in bytes.
const SECTOR: u64 = 512;

/// An image to make.
#[derive(Debug)]
pub struct NewVolume {
    key: String,
    /// Where it is to be.
    pub path: PathBuf,
    /// Whether the guest may only read it.
    pub read_only: bool,
    directory: Dir,
    name: String,
    /// Size in bytes.
    size: u64,
    template: Option<Template>,
}

#[derive(Debug)]
struct Template {
    file: File,
    path: PathBuf,
    size: u64,
}

impl NewVolume {
    /// Finds out whether the image of `drive`, which is not at `path`, can be made.
    pub fn check(
        key: &str,
        drive: &Drive,
        path: PathBuf,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        let before = problems.len();
        let mut wrong = |field: &str, message: String| {
            problems.push(Problem::new(format!("{key}.{field}"), message));
        };
        let shown = path.display();
        if drive.size_mib.is_none() && drive.template.is_none() {
            wrong(
                "path_on_host",
                format!("{shown} does not exist: create it, or add `size_mib` and the jailer does"),
            );
        }
        let template = drive.template.as_ref().and_then(|path| {
            Template::open(path)
                .map_err(|message| wrong("template", message))
                .ok()
        });
        let template_size = template.as_ref().map_or(0, |t| t.size);
        let size = drive
            .size_mib
            .map_or(template_size.next_multiple_of(SECTOR), |mib| mib << 20);
        if size < template_size {
            let least = template_size.div_ceil(1 << 20);
            wrong(
                "size_mib",
                format!("is less than its template, which needs {least}"),
            );
        }
        let directory = match open_parent(&path) {
            Ok(directory) => Some(directory),
            Err(e) => {
                wrong(
                    "path_on_host",
                    format!("cannot create {shown}: its directory: {e}; `mkdir -p` it"),
                );
                None
            }
        };
        if let Some(message) = directory
            .as_ref()
            .and_then(|directory| no_room(directory, template.as_ref()))
        {
            wrong("path_on_host", format!("cannot create {shown}: {message}"));
        }
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_none() {
            wrong("path_on_host", format!("{shown} is not the name of a file"));
        }
        let name = name.unwrap_or_default().to_owned();
        if problems.len() > before {
            return None;
        }
        Some(Self {
            key: key.into(),
            read_only: drive.is_read_only,
            directory: directory?,
            name,
            size,
            template,
            path,
        })
    }

    /// Makes it: mode 0600, `owner`'s, on the disk when this returns.
    ///
    /// # Errors
    /// [`Error`], naming the key and the image.
    pub fn create(self, owner: Owner, undo: &mut Undo) -> Result<OwnedFd, Error> {
        let shown = self.path.display();
        let failed = |what: String| Error::step::<io::Error>(format!("{what} ({})", self.key));
        let (file, temporary) = self
            .open_unnamed()
            .map_err(failed(format!("create the image {shown}")))?;
        if let Some(name) = &temporary {
            self.directory
                .record(undo, name, UnlinkatFlags::NoRemoveDir)?;
        }
        if let Some(template) = &self.template {
            let from = template.path.display();
            template
                .copy_to(&file, undo)?
                .map_err(failed(format!("copy the template {from} to {shown}")))?;
        }
        let finished = file
            .set_len(self.size)
            .and_then(|()| Ok(fchown(&file, Some(owner.uid), Some(owner.gid))?))
            .and_then(|()| Ok(fchmod(&file, Mode::S_IRUSR | Mode::S_IWUSR)?))
            .and_then(|()| file.sync_all());
        let mib = self.size >> 20;
        finished.map_err(failed(format!("make the image {shown} of {mib} MiB")))?;
        undo.checkpoint()?;

        let path = std::path::absolute(&self.path);
        let image = path.and_then(|path| Ok(Image::new(path, &fstat(&file)?)));
        let image = image.map_err(failed(format!("look at the image {shown}")))?;
        undo.announce(|made| made.images.push(image))?;
        self.name_it(&file, temporary.as_deref())
            .map_err(failed(format!("name the image {shown}")))?;
        self.record_named(&file, undo)?;
        let synced = nix::unistd::fsync(&self.directory).map_err(io::Error::from);
        synced.map_err(failed(format!("write the directory of {shown}")))?;
        self.reopen(&file)
            .map_err(failed(format!("open the image {shown} again")))
    }

    /// A file without a name where the file system has such, else with a temporary one.
    fn open_unnamed(&self) -> io::Result<(File, Option<String>)> {
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        match openat(&self.directory, ".", flags | OFlag::O_TMPFILE, mode) {
            Ok(fd) => return Ok((fd.into(), None)),
            Err(Errno::EOPNOTSUPP | Errno::EISDIR | Errno::EINVAL) => {}
            Err(e) => return Err(e.into()),
        }
        let name = format!(".{}.{}.new", self.name, std::process::id());
        let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
        let fd = openat(&self.directory, name.as_str(), flags, mode)?;
        Ok((fd.into(), Some(name)))
    }

    fn name_it(&self, file: &File, temporary: Option<&str>) -> io::Result<()> {
        let (dir, name) = (&self.directory, self.name.as_str());
        match temporary {
            None => {
                let flags = AtFlags::AT_SYMLINK_FOLLOW;
                linkat(AT_FDCWD, &by_descriptor(file), dir, name, flags)?;
            }
            Some(from) => renameat2(dir, from, dir, name, RenameFlags::RENAME_NOREPLACE)?,
        }
        Ok(())
    }

    /// The file by its name, which is what can be mounted; it must be the one made here.
    fn reopen(&self, made: &File) -> io::Result<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = openat(&self.directory, self.name.as_str(), flags, Mode::empty())?;
        let (made, there) = (fstat(made)?, fstat(&fd)?);
        if (there.st_dev, there.st_ino) != (made.st_dev, made.st_ino) {
            return Err(io::Error::other("another file has taken its place"));
        }
        Ok(fd)
    }

    /// If this is taken back, only the file made here is removed, whatever is at its name by then.
    fn record_named(&self, file: &File, undo: &mut Undo) -> Result<(), Error> {
        // Held open, so that its number is no other file's.
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

/// What is in the way if the template cannot be shared and its copy does not fit.
fn no_room(directory: &Dir, template: Option<&Template>) -> Option<String> {
    let template = template?;
    let (from, to) = (fstat(&template.file).ok()?, directory.own_stat().ok()?);
    if from.st_dev == to.st_dev {
        // It may be shared, which only the attempt can tell.
        return None;
    }
    let needed = u64::try_from(from.st_blocks).ok()?.checked_mul(512)?;
    let space = fstatvfs(directory).ok()?;
    let free = space
        .blocks_available()
        .checked_mul(space.fragment_size())?;
    (needed > free).then(|| {
        format!(
            "the copy of its template needs {} MiB and {} MiB are free",
            needed >> 20,
            free >> 20
        )
    })
}

impl Template {
    fn open(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let open = || -> io::Result<_> {
            // A FIFO in its place must not hang the start.
            let mut options = OpenOptions::new();
            let mut file = options
                .read(true)
                .custom_flags(libc::O_NONBLOCK)
                .open(path)?;
            let kind = file.metadata()?.file_type();
            // A block device has no length in its metadata.
            let size = file.seek(SeekFrom::End(0))?;
            Ok((file, kind, size))
        };
        match open() {
            Ok((_, kind, _)) if !kind.is_file() && !kind.is_block_device() => {
                Err(format!("{shown} is neither a file nor a block device"))
            }
            Ok((file, _, size)) => Ok(Self {
                file,
                path: path.into(),
                size,
            }),
            Err(e) => Err(format!("cannot open {shown}: {e}")),
        }
    }

    /// Fills `to`, which is empty, with the template: sharing its blocks where the file system can,
    /// else copying what is not a hole. The outer error is a signal's.
    fn copy_to(&self, to: &File, undo: &mut Undo) -> Result<io::Result<()>, Error> {
        if share(&self.file, to) {
            return Ok(Ok(()));
        }
        let mut at = 0;
        while at < self.size {
            undo.checkpoint()?;
            match self.next_extent(at).and_then(|(start, end)| {
                copy_range(&self.file, to, start, end)?;
                Ok(end)
            }) {
                Ok(end) => at = end,
                Err(e) => return Ok(Err(e)),
            }
        }
        Ok(Ok(()))
    }

    /// The next data at or after `at`, of at most [`COPY_CHUNK`] bytes: start and end. Empty at
    /// the template's end if there is no more.
    fn next_extent(&self, at: u64) -> io::Result<(u64, u64)> {
        let chunk = |start: u64, end: u64| (start, end.min(start.saturating_add(COPY_CHUNK)));
        let offset = i64::try_from(at).map_err(io::Error::other)?;
        let start = match lseek(&self.file, offset, Whence::SeekData) {
            Ok(start) => u64::try_from(start).map_err(io::Error::other)?,
            Err(Errno::ENXIO) => return Ok((self.size, self.size)),
            // It knows no holes: a block device.
            Err(Errno::EINVAL) => return Ok(chunk(at, self.size)),
            Err(e) => return Err(e.into()),
        };
        let hole = lseek(
            &self.file,
            i64::try_from(start).map_err(io::Error::other)?,
            Whence::SeekHole,
        )?;
        let end = u64::try_from(hole).map_err(io::Error::other)?;
        Ok(chunk(start, end.min(self.size)))
    }
}

/// Makes `to` share all blocks of `from`; `false` if the file system cannot.
#[expect(unsafe_code, reason = "FICLONE is an ioctl")]
pub fn share(from: &File, to: &File) -> bool {
    // SAFETY: the argument is a descriptor.
    unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) == 0 }
}

/// Copies the bytes from `start` to `end` to the same place.
fn copy_range(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    let signed = |n: u64| i64::try_from(n).map_err(io::Error::other);
    let (mut source, mut target) = (signed(start)?, signed(start)?);
    while source < signed(end)? {
        let left = usize::try_from(signed(end)? - source).map_err(io::Error::other)?;
        match copy_file_range(from, Some(&mut source), to, Some(&mut target), left) {
            Ok(0) => return Err(io::Error::other("the template became shorter")),
            Ok(_) => {}
            // Between file systems, or from a device, the bytes go through us.
            Err(Errno::EXDEV | Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ENOSYS) => {
                let at = u64::try_from(source).map_err(io::Error::other)?;
                return copy_bytes(from, to, at, end);
            }
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}

fn copy_bytes(from: &File, to: &File, start: u64, end: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut buffer = vec![0; 1 << 20];
    let mut at = start;
    while at < end {
        let left = usize::try_from(end - at).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        let part = buffer.get_mut(..len).unwrap_or_default();
        from.read_exact_at(part, at)?;
        to.write_all_at(part, at)?;
        at += len as u64;
    }
    Ok(())
}

#[cfg(test)]
#[path = "volume_test.rs"]
mod volume_test;
