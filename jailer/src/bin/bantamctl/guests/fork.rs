//! Copies of a running guest: their definitions, and the sockets by which the guest reaches them.
//!
//! The guest's monitor is confined to its jail, and cannot reach the jails of its copies. So the socket at which each
//! copy waits gets a link in the guest's jail, and the guest's user becomes its owner, for the one connection that it
//! accepts.

use crate::guests::guest::{Guest, check_name};
use crate::guests::{channel, definitions, making, options};
use jailer::error::Error;
use jailer::jail::layout::{FORK, RUN};
use jailer::jail::uids;
use jailer::network;
use jailer::storage::copy;
use jailer::storage::pools::pool::Pool;
use jailer::sys::dir::{Dir, by_descriptor, kind};
use jailer::undo::Undo;
use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat};
use resources::{Drive, Problem, VmConfig};
use serde::Deserialize;
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time limit for a guest to copy itself; it first flushes its disks.
const PATIENCE: Duration = Duration::from_secs(120);

/// Checks that `guest` runs, and that its definition allows copies.
///
/// # Errors
/// [`Error::Refused`] or [`Error::Problems`].
pub fn check(guest: &Guest) -> Result<(), Error> {
    if !guest.is_running() {
        return Err(guest.not_running());
    }
    let file = definitions::find(&guest.name);
    let mut problems = Vec::new();
    let mut wrong = |key: String, message: String| {
        problems.push(Problem::new(format!("{}: {key}", file.display()), message));
    };
    if !guest.config.machine_config.forkable {
        let message = "must be true to copy the guest: set it and restart the guest, or use \
                       `bantamctl create --forkable`";
        wrong("machine-config.forkable".into(), message.into());
    }
    for (i, interface) in guest.config.network_interfaces.iter().enumerate() {
        if interface.bridge.is_none() {
            let message =
                "is missing: each copy has a tap on a bridge of its own, which the jailer makes";
            wrong(format!("network-interfaces[{i}].bridge"), message.into());
        }
    }
    for (i, drive) in guest.config.drives.iter().enumerate() {
        if !drive.is_read_only
            && let Err(message) = image(drive).and_then(|path| can_share(&path))
        {
            wrong(format!("drives[{i}]"), message);
        }
    }
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Error::Problems(problems)),
    }
}

/// Returns the path of the image of `drive`.
fn image(drive: &Drive) -> Result<PathBuf, String> {
    let path = drive.path_on_host.clone().unwrap_or_default();
    let Some(pool) = &drive.pool else {
        return Ok(path);
    };
    let pool = Pool::active(pool).map_err(|found| {
        let messages = found.iter().map(ToString::to_string);
        messages.collect::<Vec<_>>().join("; ")
    })?;
    let found = pool.backend.path(path.to_str().unwrap_or_default());
    found.map_err(|e| e.to_string())
}

/// Checks that the file system of the image `path` can share blocks with a copy, by trying it with files without a
/// name.
fn can_share(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let is_file = path.metadata().is_ok_and(|m| m.is_file());
    let directory = path.parent().unwrap_or(Path::new("/"));
    let unnamed = || -> io::Result<File> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true);
        options.custom_flags(libc::O_TMPFILE).open(directory)
    };
    let shared = unnamed().and_then(|from| Ok(copy::share(&from, &unnamed()?)));
    match is_file && shared.unwrap_or(false) {
        true => Ok(()),
        false => Err(format!(
            "{shown} cannot share its blocks with a copy: keep it on btrfs or XFS (with reflinks), or set is_read_only"
        )),
    }
}

/// Returns the names of `count` copies: the first free names that begin with `prefix`.
///
/// # Errors
/// [`Error::Arguments`], if they are not valid names.
pub fn names(prefix: &str, count: u32) -> Result<Vec<String>, Error> {
    let taken = |name: &String| -> Result<bool, Error> {
        Ok(definitions::find(name).symlink_metadata().is_ok() || making::is_there(name)?)
    };
    let mut names = Vec::new();
    for number in 1_u64.. {
        if names.len() >= usize::try_from(count).unwrap_or(usize::MAX) {
            break;
        }
        let name = format!("{prefix}-{number}");
        check_name(&name)?;
        if !taken(&name)? {
            names.push(name);
        }
    }
    Ok(names)
}

/// Returns the copy `name` of `parent`, with the user `uid`. It has its parent's group, which may read the kernel and
/// the initrd from the parent's image.
pub fn copy(parent: &Guest, name: &str, uid: u32) -> Result<Guest, Error> {
    let mut config = parent.config.clone();
    let mut host = config.host.take().unwrap_or_default();
    let group = options::owner(host.uid.unwrap_or_default(), host.gid).gid;
    host.uid = Some(uid);
    host.gid = Some(group.as_raw());
    host.copy_of = Some(parent.name.clone());
    config.host = Some(host);
    for drive in &mut config.drives {
        let path = image(drive).map_err(|e| Error::step("find an image")(io::Error::other(e)))?;
        drive.pool = None;
        drive.path_on_host = Some(match drive.is_read_only {
            true => path,
            false => path.with_file_name(format!("{name}.{}.copy", drive.drive_id)),
        });
    }
    add_addresses(&mut config)?;
    Ok(Guest {
        name: name.into(),
        config,
    })
}

/// Gives the bridges of a copy the addresses of its parent's bridges, which someone else may have made.
fn add_addresses(config: &mut VmConfig) -> Result<(), Error> {
    for interface in &mut config.network_interfaces {
        let mut around = interface.host.clone().unwrap_or_default();
        if around.bridge_addresses.is_empty()
            && let Some(bridge) = &interface.bridge
        {
            let found = network::addresses_of(bridge);
            around.bridge_addresses =
                found.map_err(Error::step(format!("examine the bridge {bridge}")))?;
        }
        // No one else is in the copy's network.
        (around.nat, around.isolated) = (false, false);
        interface.host = Some(around);
    }
    Ok(())
}

/// Returns free users for `count` copies. `taken` are the users of other guests and copies.
///
/// # Errors
/// [`Error::Problems`], if there are not as many.
pub fn users(count: usize, taken: &[u32]) -> Result<Vec<u32>, Error> {
    let range = uids::Range::parse(None).map_err(Error::Arguments)?;
    let users = range.first_free(count, |uid| taken.contains(&uid))?;
    if users.len() < count {
        let message = format!("only {} uids between 64200 and 65199 are free", users.len());
        return Err(Error::Problems(vec![Problem::new("--count", message)]));
    }
    Ok(users)
}

/// Makes the monitor of `copy` serve the console. When the monitor answers, it also listens for its guest.
pub fn prepare(copy: &Guest) -> io::Result<()> {
    let serial = serde_json::to_string(&copy.config.serial.clone().unwrap_or_default())?;
    channel::put(copy, "/serial", &serial, PATIENCE).map(drop)
}

/// The result of a fork.
#[derive(Debug, Deserialize)]
pub struct Forked {
    /// Length of the parent's pause, in microseconds.
    pub held_us: u64,
}

/// Makes `parent` copy itself to all of `copies`, which wait for it. If this fails, the parent runs on.
pub fn fork(parent: &Guest, copies: &[Guest], undo: &mut Undo) -> Result<Forked, Error> {
    let mut children = Vec::new();
    let mut links = Vec::new();
    for copy in copies {
        let failed = format!("link the socket of {} for {}", copy.name, parent.name);
        let name = link_name(&copy.name);
        links.push(SocketLink::new(parent, copy, &name).map_err(Error::step(failed))?);
        children.push(json!({"socket": format!("/{}/{name}", RUN)}));
        undo.checkpoint()?;
    }
    let body = json!({"children": children}).to_string();
    let answer = channel::put(parent, "/vm/fork", &body, PATIENCE);
    let answer = answer.map_err(Error::step(format!("copy {}", parent.name)))?;
    let forked = serde_json::from_str(&answer).map_err(io::Error::from);
    forked.map_err(Error::step(format!("read the answer of {}", parent.name)))
}

/// Returns the name of the link to the socket of `copy` in its parent's jail.
fn link_name(copy: &str) -> String {
    format!("fork-{copy}.sock")
}

/// Removes the link that a killed `bantamctl fork` may have left in the jail of the parent of `copy`.
pub fn remove_link(copy: &Guest) {
    let parent = copy.copy_of().and_then(|parent| Guest::load(parent).ok());
    // A parent that no longer exists has no link.
    if let Some(run) = parent.and_then(|parent| parent.root().ok()?.enter(RUN).ok()) {
        let _ = run.remove(&link_name(&copy.name));
    }
}

/// A link to a copy's socket in the parent's jail. Dropping this removes the link.
struct SocketLink {
    run: Dir,
    name: String,
}

impl SocketLink {
    fn new(parent: &Guest, copy: &Guest, name: &str) -> io::Result<Self> {
        let (inside, outside) = (copy.root()?.enter(RUN)?, parent.root()?);
        let owner = outside.own_stat()?;
        let run = outside.enter(RUN)?;
        // A killed fork may have left one.
        let _ = nix::unistd::unlinkat(&run, name, UnlinkatFlags::NoRemoveDir);
        let socket = inside.handle(FORK)?;
        if kind(&fstat(&socket)?) != SFlag::S_IFSOCK {
            return Err(io::Error::other(format!(
                "{} is not a socket",
                by_descriptor(&socket).display()
            )));
        }
        // By the descriptor, because the jail's user may swap names.
        let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
        fchownat(&socket, "", Some(uid), Some(gid), AtFlags::AT_EMPTY_PATH)?;
        inside.link(FORK, &run, name)?;
        Ok(Self {
            run,
            name: name.into(),
        })
    }
}

impl Drop for SocketLink {
    fn drop(&mut self) {
        let _ = self.run.remove(&self.name);
    }
}
