//! Removing what a guest that has ended left on the host: its control groups, packet filter rules and
//! bridge, an image that it never had, what a copy of another had for itself, and what the jailer had put into its jail.
//!
//! What others put into the jail, and what the VMM wrote there, stays: logs, images, a client's files.

use crate::error::{Error, warn};
use crate::jail::layout::{CONFIG, DRIVES, INITRD, KERNEL, LOCK, PROCESS, RUN};
use crate::jail::{cgroup, copies, lock};
use crate::network;
use crate::sys::dir::{Dir, Owner, ROOT, absent_is_none, kind};
use crate::sys::tool::printable;
use crate::undo::Undo;
use crate::undo::record::{Made, Record};
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::{Gid, Uid, UnlinkatFlags, unlinkat};
use std::io;
use std::path::Path;

/// Most names that are looked at in a directory where the guest's user can make any number.
const MAX_NAMES: usize = 4096;
/// Most names that are told of.
const MAX_TOLD: usize = 16;

/// What is in a jail's root by its nature, whoever made it.
type Ours = fn(&FileStat) -> bool;

fn device(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR
}

fn socket(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFSOCK
}

/// The guest's user owns no file of these names, and no other user may make one.
fn written(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFREG
}

/// A file to mount another one on, or made from an image by the jailer.
fn placeholder(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFREG && stat.st_uid == ROOT.uid.as_raw()
}

/// Removes what the guest `id` left. It must not run.
pub fn clean(base: &Path, exec_name: &str, id: &str) -> Result<(), Error> {
    let mut undo = Undo::new(|| Ok(()));
    let jails = absent_is_none(Dir::open(&base.join(exec_name)));
    let jails = jails.map_err(Error::step(format!(
        "open {}",
        base.join(exec_name).display()
    )))?;
    let directory = match &jails {
        Some(jails) => absent_is_none(jails.enter(id)).map_err(Error::step(format!(
            "open {}",
            jails.path().join(id).display()
        )))?,
        None => None,
    };
    if directory
        .as_ref()
        .is_some_and(|directory| lock::is_locked(directory.path()))
    {
        let message = "it runs: end it first";
        return Err(Error::step(format!("clean up after {id}"))(
            io::Error::other(message),
        ));
    }
    // Held until the end, so that no start comes between.
    let lock = match &directory {
        Some(directory) => Some(lock::lock(directory, id, &mut undo)?),
        None => None,
    };
    let mut record = Record::open(base, exec_name, id)?;
    record.remove_images()?;
    record.clear(|made| remove_recorded(made, &[]))?;
    if let (Some(jails), Some(directory)) = (jails, directory) {
        let removed = empty(&directory, exec_name).and_then(|()| {
            remove(&directory, PROCESS, placeholder)?;
            directory.remove(LOCK)?;
            remove_directory(&jails, id)
        });
        removed.map_err(Error::step(format!(
            "remove {}",
            directory.path().display()
        )))?;
    }
    copies::forget(base, exec_name, id)?;
    undo.keep();
    drop(lock);
    Ok(())
}

/// Removes the control groups, packet filter rules and bridges that `made` records. Bridges in `kept` stay.
///
/// # Errors
/// [`Error`], naming the first that could not be removed.
pub fn remove_recorded(made: &Made, kept: &[&str]) -> Result<(), Error> {
    for group in &made.cgroups {
        absent_is_none(cgroup::remove_left(group)).map_err(Error::step(format!(
            "remove the control group {}",
            group.display()
        )))?;
    }
    network::clear(made, kept)
}

/// Removes from a jail's directory what the jailer had put there.
fn empty(directory: &Dir, exec_name: &str) -> io::Result<()> {
    let Some(root) = not_ours_is_none(directory.enter("root"))? else {
        return Ok(());
    };
    // The guest's user may have processes yet: it swaps no names here meanwhile.
    let before = root.own_stat()?;
    root.give(0o700, ROOT)?;
    let emptied = empty_root(&root, exec_name);
    let removed = emptied.and_then(|()| remove_directory(directory, "root"));
    let owner = Owner {
        uid: Uid::from_raw(before.st_uid),
        gid: Gid::from_raw(before.st_gid),
    };
    // Of one that stays; one that has gone cares no more.
    root.give(before.st_mode & 0o7777, owner)?;
    removed
}

fn empty_root(root: &Dir, exec_name: &str) -> io::Result<()> {
    if let Some(dev) = &not_ours_is_none(root.enter_own("dev"))? {
        if let Some(net) = not_ours_is_none(dev.enter_own("net"))? {
            remove(&net, "tun", device)?;
        }
        remove_directory(dev, "net")?;
        for name in ["kvm", "urandom", "userfaultfd"] {
            remove(dev, name, device)?;
        }
    }
    remove_directory(root, "dev")?;
    for (name, ours) in [(DRIVES, placeholder as Ours), (RUN, socket)] {
        if let Some(dir) = not_ours_is_none(root.enter_own(name))? {
            for name in dir.first_names(MAX_NAMES)? {
                remove(&dir, &name, ours)?;
            }
        }
        remove_directory(root, name)?;
    }
    let pid = format!("{exec_name}.pid");
    for (name, ours) in [
        (exec_name, placeholder as Ours),
        (pid.as_str(), written),
        (CONFIG, written),
        (KERNEL, placeholder),
        (INITRD, placeholder),
    ] {
        remove(root, name, ours)?;
    }
    for name in root.first_names(MAX_NAMES)? {
        remove(root, &name, socket)?;
    }
    Ok(())
}

/// Removes `name` if it is there and is what it should be.
fn remove(dir: &Dir, name: &str, ours: Ours) -> io::Result<()> {
    match not_ours_is_none(dir.stat(name))? {
        Some(stat) if ours(&stat) => not_ours_is_none(dir.remove(name)).map(drop),
        _ => Ok(()),
    }
}

/// Removes the directory `name`, unless others have files in it.
fn remove_directory(dir: &Dir, name: &str) -> io::Result<()> {
    let why = match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => match not_ours_is_none(dir.enter(name))? {
            Some(inner) => format!("it has {}", some(&inner.first_names(MAX_TOLD + 1)?)),
            None => return Ok(()),
        },
        Err(Errno::EBUSY) => "something is mounted there".to_owned(),
        Err(Errno::ENOTDIR) => "it is no directory".to_owned(),
        Err(e) => return Err(e.into()),
    };
    let path = dir.path().join(name);
    warn(&format!("{} stays, as {why}", path.display()));
    Ok(())
}

/// A few names, which a guest may have chosen, for a terminal.
fn some(names: &[String]) -> String {
    let mut told: Vec<String> = names.iter().take(MAX_TOLD).map(|n| printable(n)).collect();
    if names.len() > MAX_TOLD {
        told.push("more".into());
    }
    told.join(", ")
}

/// What is absent, or something else than it should be, which is then another's and stays.
fn not_ours_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    const OTHERS: [libc::c_int; 4] = [libc::ENOTDIR, libc::ELOOP, libc::EXDEV, libc::EISDIR];
    match result {
        Err(e) if e.raw_os_error().is_some_and(|e| OTHERS.contains(&e)) => Ok(None),
        other => absent_is_none(other),
    }
}

#[cfg(test)]
#[path = "clean_test.rs"]
mod clean_test;
