//! What is written down of copies of running guests, `/run/bantam/copies`, and what each has for itself: a network
//! namespace and disks. It is written before any of that is made, and is the last to go.
//!
//! A copy lasts as long as it runs: there is nothing that it could be started from again.

use super::{Guest, making, options};
use crate::dir::{Dir, Owner};
use crate::error::Error;
use crate::network;
use crate::state;
use crate::undo::Undo;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use resources::VmConfig;
use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Where network namespaces have names (ip-netns(8)).
const NAMESPACES: &str = "/run/netns";
/// The directory of copies in the host's state.
pub(super) const COPIES: &str = "copies";

/// Where the copy `name` is written down.
pub fn path(name: &str) -> PathBuf {
    Path::new(state::RUN)
        .join(COPIES)
        .join(format!("{name}.json"))
}

/// The network namespace of the copy `name`.
pub fn network(name: &str) -> PathBuf {
    Path::new(NAMESPACES).join(format!("bantam-{name}"))
}

/// The names of all copies, in order.
///
/// # Errors
/// What the host says.
pub fn names() -> Result<Vec<String>, Error> {
    let directory = state::directory(COPIES)?;
    let names = directory.names();
    let names = names.map_err(Error::step(format!("read {}", directory.path().display())))?;
    let names = names.iter().filter_map(|file| file.strip_suffix(".json"));
    let known = names.filter(|name| super::check_name(name).is_ok());
    Ok(known.map(str::to_owned).collect())
}

/// The users of all copies.
///
/// # Errors
/// What the host says.
pub fn uids() -> Result<Vec<u32>, Error> {
    let uids = names()?.into_iter().filter_map(|name| {
        let (config, ..) = VmConfig::read_from_file(&path(&name)).ok()?;
        config.host?.uid
    });
    Ok(uids.collect())
}

/// Writes `copy` down. Its name is free.
///
/// # Errors
/// What the host says.
pub fn save(copy: &Guest, undo: &mut Undo) -> Result<(), Error> {
    let directory = state::directory(COPIES)?;
    let failed = || format!("write {}", path(&copy.name).display());
    let text = serde_json::to_vec_pretty(&copy.config);
    let text = text.map_err(|e| Error::step(failed())(io::Error::from(e)))?;
    let (file, aside) = (format!("{}.json", copy.name), making::part(&copy.name));
    directory.make_file(undo, &aside, 0o600, crate::dir::ROOT, |to| {
        to.write_all(&text)
    })?;
    let named = directory.rename_new(&aside, &file);
    named.map_err(Error::step(failed()))
}

/// Makes what `copy`, which is written down, has for itself before it starts; [`forget`] removes it.
///
/// # Errors
/// What the host says.
pub fn make(copy: &Guest, owner: Owner, undo: &mut Undo) -> Result<(), Error> {
    for drive in copy.config.drives.iter().filter(|d| !d.is_read_only) {
        let path = drive.path_on_host.clone().unwrap_or_default();
        let (parent, name) = split(&path);
        let failed = || format!("make the image {}", path.display());
        let directory = Dir::open(parent).map_err(Error::step(failed()))?;
        // What somebody else has there stays: nobody asks for it by this name.
        if directory.stat(&name).is_ok() {
            return Err(Error::step(failed())(Errno::EEXIST));
        }
        directory.make_file(undo, &name, 0o600, owner, |_| Ok(()))?;
    }
    let network = network(&copy.name);
    let made = make_network(&network);
    made.map_err(Error::step(format!(
        "make the network namespace {}",
        network.display()
    )))?;
    undo.checkpoint()
}

fn make_network(path: &Path) -> io::Result<()> {
    fs::create_dir_all(NAMESPACES)?;
    let mut options = OpenOptions::new();
    let options = options.write(true).create_new(true).mode(0o444);
    options.open(path)?;
    // Only the thread that makes one is in it.
    let own = || {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let namespace = Path::new("/proc/thread-self/ns/net");
        let none: Option<&Path> = None;
        mount(Some(namespace), path, none, MsFlags::MS_BIND, none)?;
        network::switch_on_loopback()
    };
    let thread = std::thread::scope(|scope| scope.spawn(own).join());
    thread.map_err(|_| io::Error::other("a thread failed"))?
}

/// Removes what the copy `id` of a guest had for itself, if it is one of the jails of `exec_name` in `base`.
///
/// # Errors
/// [`Error`], naming what cannot be removed; what is written down stands, to try again.
pub fn forget(base: &Path, exec_name: &str, id: &str) -> Result<(), Error> {
    let written = path(id);
    let Ok((config, ..)) = VmConfig::read_from_file(&written) else {
        return Ok(());
    };
    if options::place(&config) != (base, exec_name.to_owned()) {
        return Ok(());
    }
    let network = network(id);
    remove_network(&network).map_err(Error::step(format!("remove {}", network.display())))?;
    for drive in config.drives.iter().filter(|drive| !drive.is_read_only) {
        let path = drive.path_on_host.clone().unwrap_or_default();
        let (parent, name) = split(&path);
        let removed = Dir::open(parent).and_then(|directory| directory.remove(&name));
        ignore_absent(removed).map_err(Error::step(format!("remove {}", path.display())))?;
    }
    ignore_absent(fs::remove_file(&written))
        .map_err(Error::step(format!("remove {}", written.display())))?;
    making::forget(id)
}

fn remove_network(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // Nothing is mounted there, or nothing is there.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    ignore_absent(fs::remove_file(path))
}

fn split(path: &Path) -> (&Path, String) {
    let name = path.file_name().unwrap_or_default();
    let parent = path.parent().unwrap_or(Path::new("/"));
    (parent, name.to_string_lossy().into_owned())
}

fn ignore_absent(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
