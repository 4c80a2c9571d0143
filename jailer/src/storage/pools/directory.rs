//! Pools of type `dir` and `netfs`: a volume is a file in a directory of the host or of an NFS server.

use crate::error::Error;
use crate::storage::pools::backend::{Backend, Usage, VolumeInfo, volume_clash};
use crate::storage::volume::{NewVolume, VolumeRequest};
use crate::sys::dir::{Dir, Owner, kind};
use crate::sys::mounts::unescape;
use crate::sys::tool::{self, Tool};
use crate::undo::{Undo, directories};
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::sys::statvfs::statvfs;
use resources::{PoolDefinition, Problem};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

/// Directory of targets that the definition does not name.
const TARGETS: &str = "/var/lib/bantam/pools";
/// Time limits for an NFS server to answer a mount, and a request for its usage.
const MOUNT_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Options of each mount; the definition's options follow, and override them.
const OPTIONS: &str = "nosuid,nodev,noexec";

/// Returns the directory of the volumes of a `dir` or `netfs` pool.
pub fn target(definition: &PoolDefinition) -> PathBuf {
    let target = definition.target.clone();
    target.unwrap_or_else(|| Path::new(TARGETS).join(&definition.name))
}

/// A directory of volumes.
#[derive(Debug)]
pub struct Directory {
    target: PathBuf,
    remote: Option<Remote>,
}

/// The NFS export that is mounted there.
#[derive(Debug)]
struct Remote {
    source: String,
    options: String,
}

impl Directory {
    /// Returns the directory that `definition` defines.
    pub fn new(definition: &PoolDefinition) -> Self {
        let remote = definition.source_host.as_ref().map(|host| {
            let path = definition.source_path.clone().unwrap_or_default();
            let host = match host.contains(':') {
                true => format!("[{host}]"),
                false => host.clone(),
            };
            let options = match &definition.source_options {
                Some(more) => format!("{OPTIONS},{more}"),
                None => OPTIONS.into(),
            };
            Remote {
                source: format!("{host}:{}", path.display()),
                options,
            }
        });
        Self {
            target: target(definition),
            remote,
        }
    }

    fn mount(&self, remote: &Remote, undo: &mut Undo) -> Result<(), Error> {
        let (source, shown) = (&remote.source, self.target.display());
        tool::need("mount.nfs", "nfs-common")?;
        if let Some(there) = mounted_at(&self.target)? {
            let message = format!(
                "{there} is already mounted on {shown}, but not by this pool: unmount it, or define a pool of \
                 type `dir` with it as --target"
            );
            return Err(Error::Problems(vec![Problem::new("target", message)]));
        }
        directories(&self.target, 0o755, undo)?;
        let tool = Tool::new("mount", "mount")?.limit(MOUNT_LIMIT);
        let tool = tool.args(["-t", "nfs", "-o", &remote.options, "--", source]);
        let mounted = tool.args([&self.target]).run(undo);
        // Recorded even if mount was interrupted.
        let target = self.target.clone();
        let recorded = undo.made(format!("the mount on {shown}"), move || {
            match umount2(&target, MntFlags::MNT_DETACH) {
                Err(nix::errno::Errno::EINVAL) => Ok(()),
                other => Ok(other?),
            }
        });
        mounted.map_err(|error| match error {
            Error::Step { source: why, .. } => Error::Step {
                step: format!(
                    "mount {source} on {shown}; check with `showmount -e` or `rpcinfo` that the server runs and \
                     exports it to this host"
                ),
                source: why,
            },
            other => other,
        })?;
        recorded?;
        match self.is_there() {
            true => Ok(()),
            false => {
                let message = "the mount is not there";
                Err(Error::step(format!("mount {source} on {shown}"))(
                    io::Error::other(message),
                ))
            }
        }
    }

    fn dir(&self) -> Result<Dir, Error> {
        Dir::open(&self.target).map_err(Error::step(format!("open {}", self.target.display())))
    }
}

impl Backend for Directory {
    fn is_there(&self) -> bool {
        match &self.remote {
            None => self.target.is_dir(),
            Some(remote) => mounted_at(&self.target)
                .ok()
                .flatten()
                .is_some_and(|there| same_source(&there, &remote.source)),
        }
    }

    fn start(&self, build: bool, undo: &mut Undo) -> Result<(), Error> {
        if let Some(remote) = &self.remote {
            return self.mount(remote, undo);
        }
        let shown = self.target.display();
        match self.target.metadata() {
            Ok(metadata) if metadata.is_dir() => Ok(()),
            Ok(_) => {
                let message = format!("{shown} is not a directory");
                Err(Error::Problems(vec![Problem::new("target", message)]))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound && build => {
                directories(&self.target, 0o755, undo).map(drop)
            }
            Err(e) => {
                let message =
                    format!("cannot use {shown}: {e}; `--build` makes it if it is missing");
                Err(Error::Problems(vec![Problem::new("target", message)]))
            }
        }
    }

    fn stop(&self) -> Result<(), Error> {
        if self.remote.is_none() {
            return Ok(());
        }
        let shown = self.target.display();
        umount2(&self.target, MntFlags::empty()).map_err(Error::step(format!(
            "unmount {shown}; `fuser -vm {shown}` shows which processes use it"
        )))
    }

    fn usage(&self) -> Result<Usage, Error> {
        let (send, answer) = mpsc::channel();
        let path = self.target.clone();
        // A dead server never answers: then the thread stays until this process ends.
        std::thread::spawn(move || send.send(statvfs(&path)));
        let answer = answer.recv_timeout(ANSWER_LIMIT);
        let failed = format!("examine {}", self.target.display());
        let Ok(answer) = answer else {
            let message = "the server does not answer; if it is dead, `umount -f -l` the directory";
            return Err(Error::step(failed)(io::Error::other(message)));
        };
        let space = answer.map_err(Error::step(failed))?;
        let bytes = |blocks: u64| blocks.saturating_mul(space.fragment_size());
        let capacity = bytes(space.blocks());
        // Without the space that is reserved for root: guests write as other users.
        let available = bytes(space.blocks_available());
        Ok(Usage {
            capacity,
            allocation: capacity.saturating_sub(available),
            available,
        })
    }

    fn volumes(&self) -> Result<Vec<VolumeInfo>, Error> {
        // Fails if the server does not answer.
        self.usage()?;
        let failed = || Error::step::<io::Error>(format!("list {}", self.target.display()));
        let mut volumes = Vec::new();
        for entry in std::fs::read_dir(&self.target).map_err(failed())? {
            let entry = entry.map_err(failed())?;
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_file() && resources::check_volume_name(&name).is_ok() {
                volumes.push(VolumeInfo {
                    path: entry.path(),
                    name,
                    capacity: metadata.len(),
                    allocation: metadata.blocks().saturating_mul(512),
                });
            }
        }
        Ok(volumes)
    }

    fn check_name(&self, _: &str) -> Result<(), String> {
        Ok(())
    }

    fn path(&self, name: &str) -> io::Result<PathBuf> {
        Ok(self.target.join(name))
    }

    fn open(&self, name: &str, flags: OFlag) -> io::Result<OwnedFd> {
        let dir = Dir::open(&self.target)?;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let fd = openat(&dir, name, flags, Mode::empty())?;
        match kind(&fstat(&fd)?) {
            SFlag::S_IFREG => Ok(fd),
            _ => Err(io::Error::other("it is not a regular file")),
        }
    }

    fn create(
        &self,
        name: &str,
        request: VolumeRequest,
        owner: Owner,
        undo: &mut Undo,
    ) -> Result<(), Error> {
        let dir = self.dir()?;
        if dir.stat(name).is_ok() {
            return Err(volume_clash(name));
        }
        let key = request.key.clone();
        let volume = NewVolume::new(dir, name, &key, request);
        let volume = volume.map_err(|problem| Error::Problems(vec![problem]))?;
        volume.create(owner, undo).map(drop)
    }

    fn delete(&self, name: &str, file: File, _: &mut Undo) -> Result<(), Error> {
        let dir = self.dir()?;
        let removed = || {
            let (open, there) = (fstat(&file)?, dir.stat(name)?);
            if (open.st_dev, open.st_ino) != (there.st_dev, there.st_ino) {
                return Err(io::Error::other("another file has replaced it"));
            }
            dir.remove(name)?;
            dir.sync()
        };
        removed().map_err(Error::step(format!(
            "delete {}",
            self.target.join(name).display()
        )))
    }

    fn resize(&self, name: &str, file: &File, size: u64, _: &mut Undo) -> Result<(), Error> {
        let resized = file.set_len(size).and_then(|()| file.sync_all());
        resized.map_err(Error::step(format!(
            "resize {}",
            self.target.join(name).display()
        )))
    }
}

/// Returns the source of the last mount on `path`.
fn mounted_at(path: &Path) -> Result<Option<String>, Error> {
    let failed = "read the mounts; is /proc mounted?";
    let text = std::fs::read("/proc/self/mountinfo").map_err(Error::step(failed))?;
    // The mount point itself may be on a server that does not answer, but its parent is not.
    let parent = path.parent().and_then(|parent| parent.canonicalize().ok());
    let path = match (parent, path.file_name()) {
        (Some(parent), Some(name)) => parent.join(name),
        _ => path.to_owned(),
    };
    Ok(source_at(&text, &path))
}

/// Returns the source of the last mount on `path` in a mountinfo (proc(5)).
fn source_at(text: &[u8], path: &Path) -> Option<String> {
    let lines = text.split(|byte| *byte == b'\n');
    let mut found = lines.filter_map(|line| {
        let mut words = line.split(|byte| *byte == b' ');
        let point = unescape(words.nth(4)?);
        let mut after = words.skip_while(|word| word != b"-").skip(2);
        (Path::new(&OsString::from_vec(point)) == path)
            .then(|| {
                String::from_utf8_lossy(&unescape(after.next()?))
                    .into_owned()
                    .into()
            })
            .flatten()
    });
    found.next_back()
}

fn same_source(one: &str, other: &str) -> bool {
    one.trim_end_matches('/') == other.trim_end_matches('/')
}

#[cfg(test)]
#[path = "directory_test.rs"]
mod directory_test;
