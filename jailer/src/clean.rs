//! Removing what a guest that has ended left on the host: its control groups, packet filter rules and
//! bridge, an image that it never had, and what the jailer had put into its jail.
//!
//! What others put into the jail, and what the VMM wrote there, stays: logs, images, a client's files.

use crate::chroot::{self, LOCK, PROCESS};
use crate::dir::{Dir, ROOT, kind};
use crate::error::{Error, warn};
use crate::jail_config::{DRIVES, FILE, INITRD, KERNEL};
use crate::network;
use crate::record::Record;
use crate::undo::Undo;
use nix::errno::Errno;
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::io;
use std::path::Path;

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
///
/// # Errors
/// [`Error`], naming what cannot be removed.
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
    // Held until the end, so that no start comes between.
    let lock = match &directory {
        Some(directory) => Some(chroot::lock(directory, id, &mut undo)?),
        None => None,
    };
    let mut record = Record::open(base, exec_name, id)?;
    record.clear(|made| network::clear(made, &[]))?;
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
    undo.keep();
    drop(lock);
    Ok(())
}

/// Removes from a jail's directory what the jailer had put there.
fn empty(directory: &Dir, exec_name: &str) -> io::Result<()> {
    let Some(root) = absent_is_none(directory.enter("root"))? else {
        return Ok(());
    };
    let pid = format!("{exec_name}.pid");
    let dev = absent_is_none(root.enter("dev"))?;
    if let Some(dev) = &dev {
        if let Some(net) = absent_is_none(dev.enter("net"))? {
            remove(&net, "tun", device)?;
        }
        remove_directory(dev, "net")?;
        for name in ["kvm", "urandom", "userfaultfd"] {
            remove(dev, name, device)?;
        }
        remove_directory(&root, "dev")?;
    }
    if let Some(drives) = absent_is_none(root.enter(DRIVES))? {
        for name in drives.names()? {
            remove(&drives, &name, placeholder)?;
        }
        remove_directory(&root, DRIVES)?;
    }
    if let Some(run) = absent_is_none(root.enter("run"))? {
        for name in run.names()? {
            remove(&run, &name, socket)?;
        }
        remove_directory(&root, "run")?;
    }
    remove(&root, exec_name, placeholder)?;
    for (name, ours) in [
        (pid.as_str(), written as Ours),
        (FILE, written),
        (KERNEL, placeholder),
        (INITRD, placeholder),
    ] {
        remove(&root, name, ours)?;
    }
    for name in root.names()? {
        remove(&root, &name, socket)?;
    }
    remove_directory(directory, "root")
}

/// Removes `name` if it is there and is what it should be.
fn remove(dir: &Dir, name: &str, ours: Ours) -> io::Result<()> {
    match absent_is_none(dir.stat(name))? {
        Some(stat) if ours(&stat) => absent_is_none(dir.remove(name)).map(drop),
        _ => Ok(()),
    }
}

/// Removes the directory `name`, unless others have files in it.
fn remove_directory(dir: &Dir, name: &str) -> io::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => {
            let path = dir.path().join(name);
            let left = dir.enter(name)?.names()?.join(", ");
            warn(&format!("{} stays, as it has {left}", path.display()));
            Ok(())
        }
        Err(Errno::EBUSY) => {
            let path = dir.path().join(name);
            warn(&format!(
                "{} stays, as something is mounted there",
                path.display()
            ));
            Ok(())
        }
        Err(e) => Err(e.into()),
    }
}

fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
