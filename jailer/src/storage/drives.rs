//! A guest's files on the host: kernel, initrd and disk images, found or made.
//!
//! They are opened once, before anything is made, and used by their descriptors from then on.

use crate::confine::privileges;
use crate::error::{Error, warn};
use crate::storage::lock;
use crate::storage::pools::pool::Pool;
use crate::storage::volume::{NewVolume, VolumeRequest};
use crate::sys::dir::{Owner, kind};
use crate::undo::Undo;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use nix::unistd::fchownat;
use resources::{Drive, Problem, VmConfig};
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A file of the host that is mounted in the guest's jail.
#[derive(Debug)]
pub struct HostFile {
    fd: OwnedFd,
    /// True if the guest's user becomes the owner when the guest starts.
    give: bool,
    /// True if the file is mounted read-only.
    pub read_only: bool,
    /// True for a block device.
    pub device: bool,
}

impl AsFd for HostFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// The image of a checked drive.
#[derive(Debug)]
pub enum Image {
    /// An existing image or block device.
    Existing(HostFile),
    /// An image that is made at the start.
    New(Box<NewImage>),
}

/// An image to make, beside other images or in a pool.
#[derive(Debug)]
pub struct NewImage {
    place: Place,
    /// Identifies the image, to find two drives that ask for the same.
    path: PathBuf,
    read_only: bool,
}

#[derive(Debug)]
enum Place {
    Path(NewVolume),
    Pool(Pool, String, VolumeRequest),
}

/// All files that a guest needs.
#[derive(Debug)]
pub struct Files<Disk> {
    /// The kernel; `None` if it is in the image of a drive.
    pub kernel: Option<HostFile>,
    /// The initrd.
    pub initrd: Option<HostFile>,
    /// Images and block devices, in the order of the drives.
    pub drives: Vec<Disk>,
}

/// Finds the files that `config` names, without making any. Returns `None` if there are new `problems`.
pub fn check(config: &VmConfig, owner: Owner, problems: &mut Vec<Problem>) -> Option<Files<Image>> {
    let boot = &config.boot_source;
    let path = &boot.kernel_image_path;
    let key = "boot-source.kernel_image_path";
    let kernel = boot.image_drive.is_none();
    let kernel = kernel.then(|| boot_file(key, path, owner, problems));
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
        kernel: match kernel {
            Some(found) => Some(found?),
            None => None,
        },
        initrd: match initrd {
            Some(found) => Some(found?),
            None => None,
        },
        drives: drives.into_iter().collect::<Option<_>>()?,
    })
}

impl Files<Image> {
    /// Makes the images that [`check`] found missing, and gives volumes to `owner`.
    pub fn make(self, owner: Owner, undo: &mut Undo) -> Result<Files<HostFile>, Error> {
        let mut drives = Vec::new();
        for image in self.drives {
            drives.push(match image {
                Image::Existing(file) => {
                    if file.give {
                        give(&file.fd, owner, undo)?;
                    }
                    file
                }
                Image::New(image) => image.make(owner, undo)?,
            });
        }
        Ok(Files {
            kernel: self.kernel,
            initrd: self.initrd,
            drives,
        })
    }
}

impl NewImage {
    fn make(self, owner: Owner, undo: &mut Undo) -> Result<HostFile, Error> {
        let (fd, device) = match self.place {
            Place::Path(volume) => (volume.create(owner, undo)?, false),
            Place::Pool(pool, name, request) => {
                pool.backend.create(&name, request, owner, undo)?;
                let fd: OwnedFd = pool.open(&name, OFlag::O_PATH)?.into();
                let device = fstat(&fd).is_ok_and(|stat| kind(&stat) == SFlag::S_IFBLK);
                if device {
                    give(&fd, owner, undo)?;
                }
                (fd, device)
            }
        };
        Ok(HostFile {
            fd,
            give: false,
            read_only: self.read_only,
            device,
        })
    }
}

/// Makes `owner` the owner of a pool's volume. A failed start restores the former owner.
fn give(fd: &OwnedFd, owner: Owner, undo: &mut Undo) -> Result<(), Error> {
    let failed = || format!("give a volume to user {}", owner.uid);
    let held = fd.try_clone().map_err(Error::step(failed()))?;
    let former = fstat(fd).map_err(Error::step(failed()))?;
    let own = |fd: &OwnedFd, uid, gid| {
        fchownat(fd, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH).map_err(io::Error::from)
    };
    own(fd, owner.uid, owner.gid).map_err(Error::step(failed()))?;
    undo.made("the owner of a volume", move || {
        own(&held, former.st_uid.into(), former.st_gid.into())
    })
}

/// Opens `path` with `O_PATH`, to examine and mount it: a device or a pipe does not notice.
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
            give: false,
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
    if let Some(pool) = &drive.pool {
        return in_pool(key, drive, pool, owner, problems);
    }
    // The configuration's own checks refuse a missing path.
    let path = drive.path_on_host.clone().unwrap_or_default();
    match open(&path) {
        Ok((fd, stat)) => existing(key, drive, &path, fd, &stat, owner)
            .map_err(|problem| problems.push(problem))
            .ok(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let volume = NewVolume::check(key, drive, path.clone(), problems)?;
            Some(Image::New(Box::new(NewImage {
                place: Place::Path(volume),
                path,
                read_only: drive.is_read_only,
            })))
        }
        Err(e) => {
            let message = format!("cannot open {}: {e}", path.display());
            problems.push(Problem::new(format!("{key}.path_on_host"), message));
            None
        }
    }
}

/// Returns the volume of a drive with `pool`. The configuration's own checks have checked the names.
fn in_pool(
    key: &str,
    drive: &Drive,
    pool: &str,
    owner: Owner,
    problems: &mut Vec<Problem>,
) -> Option<Image> {
    let path = drive.path_on_host.clone().unwrap_or_default();
    let name = path.to_str().unwrap_or_default();
    let mut wrong = |key: String, message: String| problems.push(Problem::new(key, message));
    let pool = match Pool::active(pool) {
        Ok(pool) => pool,
        Err(found) => {
            found
                .into_iter()
                .for_each(|p| wrong(format!("{key}.pool"), p.message));
            return None;
        }
    };
    if let Err(message) = pool.check_name(name) {
        wrong(format!("{key}.path_on_host"), message);
        return None;
    }
    let opened = pool.backend.open(name, OFlag::O_PATH).and_then(|fd| {
        let stat = fstat(&fd)?;
        Ok((fd, stat))
    });
    match opened {
        Ok((fd, stat)) => {
            let path = pool.backend.path(name).unwrap_or(path);
            existing(key, drive, &path, fd, &stat, owner)
                .map_err(|problem| problems.push(problem))
                .ok()
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let request = VolumeRequest::by_drive(key, drive, problems)?;
            Some(Image::New(Box::new(NewImage {
                path: Path::new(pool.name()).join(name),
                place: Place::Pool(pool, name.into(), request),
                read_only: drive.is_read_only,
            })))
        }
        Err(e) => {
            let message = format!("cannot open the volume {name} of {}: {e}", pool.name());
            wrong(format!("{key}.path_on_host"), message);
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
    let write = !drive.is_read_only;
    let give = match accessible(&fd, path, owner, write) {
        Ok(()) => false,
        // The start of a guest with a writable volume makes its user the owner.
        Err(_) if drive.pool.is_some() && write => true,
        Err(message) => return Err(wrong(message)),
    };
    if lock::in_use(&fd, drive.is_read_only) {
        return Err(wrong(format!(
            "{} is in use by another process: only one guest can have a writable drive; several can share one \
             with `is_read_only`",
            path.display()
        )));
    }
    let mib = u64::try_from(stat.st_size).unwrap_or_default() >> 20;
    if let Some(size) = drive.size_mib.filter(|size| !device && *size != mib) {
        warn(&format!(
            "{key}.size_mib is {size}, but {} has {mib} MiB and is used as it is",
            path.display()
        ));
    }
    Ok(Image::Existing(HostFile {
        fd,
        give,
        read_only: drive.is_read_only,
        device,
    }))
}

/// Checks that `owner` can open the file.
///
/// # Errors
/// A message that says how to give it access.
fn accessible(fd: &OwnedFd, path: &Path, owner: Owner, write: bool) -> Result<(), String> {
    if !nix::unistd::geteuid().is_root() {
        // `check` reports that separately, and nothing can be tried as another user.
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
            "the guest's user {uid}, group {gid}, must be able to {can} {path}: \
             `chown {uid}:{gid} {path}`, or `setfacl -m u:{uid}:{bits} {path}`{}",
            if write { ", or set is_read_only" } else { "" }
        )),
        Err(e) if e.raw_os_error() == Some(libc::EROFS) => Err(format!(
            "{path} is on a read-only file system: set is_read_only, or move it"
        )),
        Err(e) => Err(format!("cannot examine {path}: {e}")),
    }
}

/// Refuses a file that two drives use, unless both only read it.
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
            Some(Image::New(image)) => Identity::Path(&image.path),
            None => continue,
        };
        let new = matches!(identity, Identity::Path(_));
        match seen.get(&identity) {
            Some((first, read_only)) if new || !read_only || !drive.is_read_only => {
                let message = format!(
                    "is also the image of drives[{first}]: a writable drive needs an image of its own"
                );
                problems.push(Problem::new(format!("drives[{i}].path_on_host"), message));
            }
            Some(_) => {}
            None => {
                seen.insert(identity, (i, drive.is_read_only));
            }
        }
    }
}
