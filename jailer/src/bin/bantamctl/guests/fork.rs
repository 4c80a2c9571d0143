//! Copies of a running guest: what each of them is, and how the guest reaches them.
//!
//! The guest's VMM is locked in, and has no way to the jails of its copies. So the sockets at which those wait get
//! second names in its jail, and it becomes their owner, for the one connection that each takes.

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

/// How long a guest may take to copy itself: what it has written is first on its disks.
const PATIENCE: Duration = Duration::from_secs(120);

/// Why `guest` cannot be copied, in its definition.
///
/// # Errors
/// [`Error::Problems`]: all of it.
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
        let message = "must be true for a guest that is to be copied: set it and start the guest again, or \
                       `bantamctl create --forkable`";
        wrong("machine-config.forkable".into(), message.into());
    }
    for (i, interface) in guest.config.network_interfaces.iter().enumerate() {
        if interface.bridge.is_none() {
            let message =
                "is needed: each copy has a tap on a bridge of its own, which the jailer makes";
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

/// Where the image of `drive` is.
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

/// Whether the file system of the image `path` can share its blocks with a copy: tried on files without a name.
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
            "{shown} cannot be copied at once: keep it on btrfs or XFS (with reflinks), or set is_read_only"
        )),
    }
}

/// The names of `count` copies: the first free ones that begin with `prefix`.
///
/// # Errors
/// They are no names.
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

/// The copy `name` of `parent`, as user `uid`. It is of its parent's group, whose members share what the jailer found in
/// its image.
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

/// Has the bridges of a copy have the addresses of its parent's, which others may have made.
fn add_addresses(config: &mut VmConfig) -> Result<(), Error> {
    for interface in &mut config.network_interfaces {
        let mut around = interface.host.clone().unwrap_or_default();
        if around.bridge_addresses.is_empty()
            && let Some(bridge) = &interface.bridge
        {
            let found = network::addresses_of(bridge);
            around.bridge_addresses =
                found.map_err(Error::step(format!("look at the bridge {bridge}")))?;
        }
        // There is nobody that a copy could reach by it, or be kept from.
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

/// Waits until `copy`'s VMM answers, which is when its door is open; has it serve the console.
pub fn prepare(copy: &Guest) -> io::Result<()> {
    let serial = serde_json::to_string(&copy.config.serial.clone().unwrap_or_default())?;
    channel::put(copy, "/serial", &serial, PATIENCE).map(drop)
}

/// What a fork came to.
#[derive(Debug, Deserialize)]
pub struct Forked {
    /// How long the parent was held, in microseconds.
    pub held_us: u64,
}

/// Has `parent` give itself to all of `copies`, which wait.
///
/// # Errors
/// What the host says, or the parent's VMM, which goes on.
pub fn fork(parent: &Guest, copies: &[Guest], undo: &mut Undo) -> Result<Forked, Error> {
    let mut children = Vec::new();
    let mut links = Vec::new();
    for copy in copies {
        let failed = format!("open the door of {} to {}", copy.name, parent.name);
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

/// The name of the door of `copy` in the jail of its parent.
fn link_name(copy: &str) -> String {
    format!("fork-{copy}.sock")
}

/// Removes the door that `copy`, whose maker was killed, may have in the jail of its parent.
pub fn remove_link(copy: &Guest) {
    let parent = copy.copy_of().and_then(|parent| Guest::load(parent).ok());
    // One that is not there any more has none.
    if let Some(run) = parent.and_then(|parent| parent.root().ok()?.enter(RUN).ok()) {
        let _ = run.remove(&link_name(&copy.name));
    }
}

/// The second name of a socket, in the parent's jail; it goes with this.
struct SocketLink {
    run: Dir,
    name: String,
}

impl SocketLink {
    fn new(parent: &Guest, copy: &Guest, name: &str) -> io::Result<Self> {
        let (inside, outside) = (copy.root()?.enter(RUN)?, parent.root()?);
        let owner = outside.own_stat()?;
        let run = outside.enter(RUN)?;
        // One that a fork which was killed has left.
        let _ = nix::unistd::unlinkat(&run, name, UnlinkatFlags::NoRemoveDir);
        let socket = inside.handle(FORK)?;
        if kind(&fstat(&socket)?) != SFlag::S_IFSOCK {
            return Err(io::Error::other(format!(
                "{} is no socket",
                by_descriptor(&socket).display()
            )));
        }
        // By the descriptor: whoever has the directory may swap names.
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
