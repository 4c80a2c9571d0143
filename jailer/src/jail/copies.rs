//! Copies of running guests: the record of each in `/run/bantam/copies`, and what each has for itself, a network
//! namespace and disks.
//!
//! `bantamctl fork` makes copies; this file names what it makes, and removes it. The record is written before anything
//! else of a copy is made, and is removed last. A copy lasts as long as it runs: nothing could start it again.

use crate::error::Error;
use crate::jail::options::{check_id, place};
use crate::sys::dir::{Dir, absent_is_none};
use crate::undo::state;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use resources::VmConfig;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Directory in which network namespaces have names (ip-netns(8)).
pub const NAMESPACES: &str = "/run/netns";
/// Directory of copies in the host's state.
const COPIES: &str = "copies";

/// Opens the directory of records.
pub fn directory() -> Result<Dir, Error> {
    state::directory(COPIES)
}

/// Returns the path of the record of the copy `name`.
pub fn path(name: &str) -> PathBuf {
    Path::new(state::RUN).join(COPIES).join(file(name))
}

/// Returns the file name of the record of the copy `name`.
pub fn file(name: &str) -> String {
    format!("{name}.json")
}

/// Returns the file name under which that record is written before it is whole.
pub fn partial(name: &str) -> String {
    format!("{name}.part")
}

/// Returns the file name of the FIFO that exists while the copy `name` is being made.
pub fn fifo(name: &str) -> String {
    format!("{name}.new")
}

/// Returns the path of the network namespace of the copy `name`.
pub fn network(name: &str) -> PathBuf {
    Path::new(NAMESPACES).join(format!("bantam-{name}"))
}

/// Returns the names of all copies, sorted.
pub fn names() -> Result<Vec<String>, Error> {
    let directory = directory()?;
    let names = directory.names();
    let names = names.map_err(Error::step(format!("read {}", directory.path().display())))?;
    let names = names.iter().filter_map(|file| file.strip_suffix(".json"));
    let known = names.filter(|name| check_id(name).is_ok());
    Ok(known.map(str::to_owned).collect())
}

/// Returns the user ids of all copies.
pub fn uids() -> Result<Vec<u32>, Error> {
    let uids = names()?.into_iter().filter_map(|name| {
        let (config, ..) = VmConfig::read_from_file(&path(&name)).ok()?;
        config.host?.uid
    });
    Ok(uids.collect())
}

/// Removes what the copy `id` had for itself, if it is a jail of `exec_name` in `base`.
///
/// # Errors
/// [`Error`], naming what cannot be removed; the record stays, so that the caller can try again.
pub fn forget(base: &Path, exec_name: &str, id: &str) -> Result<(), Error> {
    let record = path(id);
    let Ok((config, ..)) = VmConfig::read_from_file(&record) else {
        return Ok(());
    };
    if place(&config) != (base, exec_name.to_owned()) {
        return Ok(());
    }
    let network = network(id);
    remove_network(&network).map_err(Error::step(format!("remove {}", network.display())))?;
    for drive in config.drives.iter().filter(|drive| !drive.is_read_only) {
        let path = drive.path_on_host.clone().unwrap_or_default();
        let removed = absent_is_none(fs::remove_file(&path));
        removed.map_err(Error::step(format!("remove {}", path.display())))?;
    }
    absent_is_none(fs::remove_file(&record))
        .map_err(Error::step(format!("remove {}", record.display())))?;
    forget_making(id)
}

/// Removes the files that say that the copy `name` is being made.
pub fn forget_making(name: &str) -> Result<(), Error> {
    let directory = directory()?;
    directory.remove_leftover(&partial(name))?;
    directory.remove_leftover(&fifo(name))
}

fn remove_network(path: &Path) -> io::Result<()> {
    match umount2(path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
        // Nothing is mounted there, or there is no such file.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(e) => return Err(e.into()),
    }
    absent_is_none(fs::remove_file(path)).map(drop)
}
