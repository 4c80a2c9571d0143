//! The guest's files on the host: kernel, initrd and disk images, found or made.
//!
//! They are opened once, before anything is made, and held by descriptor from then on. No byte of
//! an image is looked at here: a guest wrote it.

pub mod volume;

use crate::dir::{Owner, by_descriptor, kind};
use crate::error::{Error, warn};
use crate::privileges;
use crate::undo::Undo;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, fcntl, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use resources::{Drive, Problem, VmConfig};
use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use volume::NewVolume;

/// A file of the host that the guest's jail gets.
#[derive(Debug)]
pub struct HostFile {
    fd: OwnedFd,
    /// Whether the jail may only read it.
    pub read_only: bool,
    /// Whether it is a block device.
    pub device: bool,
}

impl AsFd for HostFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One drive, checked: what is there already, and what is to be made.
#[derive(Debug)]
pub enum Image {
    /// An image or a block device that exists.
    Existing(HostFile),
    /// An image to make.
    New(NewVolume),
}

/// All files that a guest needs.
#[derive(Debug)]
pub struct Files<Disk> {
    /// The kernel.
    pub kernel: HostFile,
    /// The initrd.
    pub initrd: Option<HostFile>,
    /// Images and block devices, in the order of the drives.
    pub drives: Vec<Disk>,
}

/// Finds the files that `config` names, without making any. `None` if one is missing, which is then
/// among `problems`.
pub fn check(config: &VmConfig, owner: Owner, problems: &mut Vec<Problem>) -> Option<Files<Image>> {
    let boot = &config.boot_source;
    let kernel = boot_file(
        "boot-source.kernel_image_path",
        &boot.kernel_image_path,
        owner,
        problems,
    );
    let initrd = boot.initrd_path.as_ref();
    let initrd = initrd.map(|path| boot_file("boot-source.initrd_path", path, owner, problems));
    let drives: Vec<_> = config
        .drives
        .iter()
        .enumerate()
        .map(|(i, drive)| disk(&format!("drives[{i}]"), drive, owner, problems))
        .collect();
    check_shared(&config.drives, &drives, problems);
    Some(Files {
        kernel: kernel?,
        initrd: match initrd {
            Some(found) => Some(found?),
            None => None,
        },
        drives: drives.into_iter().collect::<Option<_>>()?,
    })
}

impl Files<Image> {
    /// Makes the images that [`check`] found missing.
    ///
    /// # Errors
    /// [`Error`], naming the key and the image.
    pub fn make(self, owner: Owner, undo: &mut Undo) -> Result<Files<HostFile>, Error> {
        let mut drives = Vec::new();
        for image in self.drives {
            drives.push(match image {
                Image::Existing(file) => file,
                Image::New(volume) => HostFile {
                    read_only: volume.read_only,
                    device: false,
                    fd: volume.create(owner, undo)?,
                },
            });
        }
        Ok(Files {
            kernel: self.kernel,
            initrd: self.initrd,
            drives,
        })
    }
}

/// Opens `path` to look at it and to mount it, not to read it: no device or pipe behind it stirs.
fn open(path: &Path) -> io::Result<(OwnedFd, FileStat)> {
    let flags = OFlag::O_PATH | OFlag::O_CLOEXEC;
    let fd = openat(AT_FDCWD, path, flags, Mode::empty())?;
    let stat = fstat(&fd)?;
    Ok((fd, stat))
}

fn boot_file(
    key: &str,
    path: &Path,
    owner: Owner,
    problems: &mut Vec<Problem>,
) -> Option<HostFile> {
    let found = match open(path) {
        Ok((fd, stat)) if kind(&stat) == SFlag::S_IFREG => Ok(fd),
        Ok(_) => Err(format!("{} is not a regular file", path.display())),
        Err(e) => Err(format!("cannot open {}: {e}", path.display())),
    };
    let found = found.and_then(|fd| {
        accessible(&fd, path, owner, false)?;
        Ok(fd)
    });
    match found {
        Ok(fd) => Some(HostFile {
            fd,
            read_only: true,
            device: false,
        }),
        Err(message) => {
            problems.push(Problem::new(key, message));
            None
        }
    }
}

fn disk(key: &str, drive: &Drive, owner: Owner, problems: &mut Vec<Problem>) -> Option<Image> {
    // Its absence is refused when the configuration is read.
    let path = drive.path_on_host.clone().unwrap_or_default();
    match open(&path) {
        Ok((fd, stat)) => existing(key, drive, &path, fd, &stat, owner)
            .map_err(|problem| problems.push(problem))
            .ok(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            NewVolume::check(key, drive, path, problems).map(Image::New)
        }
        Err(e) => {
            let message = format!("cannot open {}: {e}", path.display());
            problems.push(Problem::new(format!("{key}.path_on_host"), message));
            None
        }
    }
}

fn existing(
    key: &str,
    drive: &Drive,
    path: &Path,
    fd: OwnedFd,
    stat: &FileStat,
    owner: Owner,
) -> Result<Image, Problem> {
    let wrong = |message: String| Problem::new(format!("{key}.path_on_host"), message);
    let device = match kind(stat) {
        SFlag::S_IFREG => false,
        SFlag::S_IFBLK => true,
        _ => {
            return Err(wrong(format!(
                "{} is neither a file nor a block device: name a raw disk image",
                path.display()
            )));
        }
    };
    accessible(&fd, path, owner, !drive.is_read_only).map_err(wrong)?;
    if in_use(&fd, drive.is_read_only) {
        return Err(wrong(format!(
            "{} is in use by another process: a writable drive is one guest's alone, a read-only one \
             can be shared with `is_read_only`",
            path.display()
        )));
    }
    let mib = u64::try_from(stat.st_size).unwrap_or_default() >> 20;
    if let Some(size) = drive.size_mib.filter(|size| !device && *size != mib) {
        warn(&format!(
            "{key}.size_mib is {size}, but {} exists with {mib} MiB and is used as it is",
            path.display()
        ));
    }
    Ok(Image::Existing(HostFile {
        fd,
        read_only: drive.is_read_only,
        device,
    }))
}

/// Whether another process's lock is in the way of the one that the VMM will set. What cannot be told
/// here the VMM will tell.
fn in_use(fd: &OwnedFd, shared: bool) -> bool {
    let kind = if shared { libc::F_RDLCK } else { libc::F_WRLCK };
    let (Ok(kind), Ok(whence), Ok(unlocked)) = (
        libc::c_short::try_from(kind),
        libc::c_short::try_from(libc::SEEK_SET),
        libc::c_short::try_from(libc::F_UNLCK),
    ) else {
        return false;
    };
    let mut lock = libc::flock {
        l_type: kind,
        l_whence: whence,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(by_descriptor(fd)).is_ok_and(|file| {
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && lock.l_type != unlocked
    })
}

/// Whether `owner` can open the file, or how to get there.
fn accessible(fd: &OwnedFd, path: &Path, owner: Owner, write: bool) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        // That is a problem of its own, and nothing can be tried as another user.
        return Ok(());
    }
    let (path, uid, gid) = (path.display(), owner.uid, owner.gid);
    let (can, bits) = match write {
        true => ("read and write", "rw"),
        false => ("read", "r"),
    };
    match privileges::may_open(fd, owner, write) {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!(
            "{path} must be open to the guest's user {uid}, group {gid}, to {can}: \
             `chown {uid}:{gid} {path}`, or `setfacl -m u:{uid}:{bits} {path}`{}",
            if write { ", or set is_read_only" } else { "" }
        )),
        Err(e) if e.raw_os_error() == Some(libc::EROFS) => Err(format!(
            "{path} is on a read-only file system: set is_read_only, or move it"
        )),
        Err(e) => Err(format!("cannot look at {path}: {e}")),
    }
}

/// Refuses a file that two drives have and one writes.
fn check_shared(drives: &[Drive], images: &[Option<Image>], problems: &mut Vec<Problem>) {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    enum Identity<'a> {
        Node(u64, u64),
        Path(&'a PathBuf),
    }
    let mut seen: BTreeMap<Identity<'_>, (usize, bool)> = BTreeMap::new();
    for (i, (drive, image)) in drives.iter().zip(images).enumerate() {
        let identity = match image {
            Some(Image::Existing(file)) => match fstat(file) {
                Ok(stat) => Identity::Node(stat.st_dev, stat.st_ino),
                Err(_) => continue,
            },
            Some(Image::New(volume)) => Identity::Path(&volume.path),
            None => continue,
        };
        let new = matches!(identity, Identity::Path(_));
        match seen.get(&identity) {
            Some((first, read_only)) if new || !read_only || !drive.is_read_only => {
                let message =
                    format!("is the image of drives[{first}] too: a writable drive needs its own");
                problems.push(Problem::new(format!("drives[{i}].path_on_host"), message));
            }
            Some(_) => {}
            None => {
                seen.insert(identity, (i, drive.is_read_only));
            }
        }
    }
}
