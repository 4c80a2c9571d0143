//! Removes what an ended guest left on the host: control groups, packet filter rules and bridges, an image that it
//! never used, a copy's own disks and network, and the jailer's files in the jail.
//!
//! Files that a client or the monitor put into the jail stay: logs, images, a client's files.

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

/// Most names that are read in a directory where the guest's user can make any number.
const MAX_NAMES: usize = 4096;
/// Most names in a message.
const MAX_SHOWN: usize = 16;

/// Returns whether a file in a jail's root is the jailer's, or one that every monitor makes.
type Ours = fn(&FileStat) -> bool;

fn device(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR
}

fn socket(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFSOCK
}

/// A file with a name that only the jailer uses.
fn written(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFREG
}

/// A placeholder for a mount, or a file that the jailer copied from an image.
fn placeholder(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFREG && stat.st_uid == ROOT.uid.as_raw()
}

/// Removes what the guest `id` left.
///
/// # Errors
/// [`Error`], if the guest runs, or something cannot be removed.
pub fn clean(base: &Path, exec_name: &str, id: &str) -> Result<(), Error> {
    let mut undo = Undo::uninterrupted();
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
    // Locked until the end, so that no start interferes.
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

/// Removes the jailer's files from a jail's directory.
fn empty(directory: &Dir, exec_name: &str) -> io::Result<()> {
    let Some(root) = not_ours_is_none(directory.enter("root"))? else {
        return Ok(());
    };
    // The guest's user may still have processes, which must not swap names here.
    let before = root.own_stat()?;
    root.give(0o700, ROOT)?;
    let emptied = empty_root(&root, exec_name);
    let removed = emptied.and_then(|()| remove_directory(directory, "root"));
    let owner = Owner {
        uid: Uid::from_raw(before.st_uid),
        gid: Gid::from_raw(before.st_gid),
    };
    // For a root that stays; on a removed one it has no effect.
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

/// Removes `name` if it exists and `ours` says that it is the jailer's.
fn remove(dir: &Dir, name: &str, ours: Ours) -> io::Result<()> {
    match not_ours_is_none(dir.stat(name))? {
        Some(stat) if ours(&stat) => not_ours_is_none(dir.remove(name)).map(drop),
        _ => Ok(()),
    }
}

/// Removes the directory `name`, unless other files are in it.
fn remove_directory(dir: &Dir, name: &str) -> io::Result<()> {
    let why = match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => match not_ours_is_none(dir.enter(name))? {
            Some(inner) => format!("it contains {}", some(&inner.first_names(MAX_SHOWN + 1)?)),
            None => return Ok(()),
        },
        Err(Errno::EBUSY) => "something is mounted there".to_owned(),
        Err(Errno::ENOTDIR) => "it is not a directory".to_owned(),
        Err(e) => return Err(e.into()),
    };
    let path = dir.path().join(name);
    warn(&format!("{} stays, because {why}", path.display()));
    Ok(())
}

/// Returns a few names for a terminal; a guest may have chosen them.
fn some(names: &[String]) -> String {
    let mut shown: Vec<String> = names.iter().take(MAX_SHOWN).map(|n| printable(n)).collect();
    if names.len() > MAX_SHOWN {
        shown.push("more".into());
    }
    shown.join(", ")
}

/// Turns "there is none" and "it is another kind of file", which then is not the jailer's, into `None`.
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
