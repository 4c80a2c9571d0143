//! Namespaces of mounts, users and networks, and the change of the root directory.

use crate::error::Error;
use crate::sys::dir::{Dir, Owner, by_descriptor};
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;
use nix::unistd::{fchdir, pivot_root};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd;
use std::path::Path;

const NONE: Option<&str> = None;

/// The mount namespace in which the jailer was started.
#[derive(Debug)]
pub struct HostMounts(File);

impl HostMounts {
    /// Enters it again, so that no mount in the jail hinders the removal of files.
    pub fn enter(&self) -> io::Result<()> {
        // The kernel moves only a thread that shares its root and working directory with no other thread.
        unshare(CloneFlags::CLONE_FS)?;
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNS)?)
    }
}

/// Gives this thread a mount namespace of its own, which ends with the process. Returns the former one.
pub fn own_mounts() -> Result<HostMounts, Error> {
    let home = File::open("/proc/self/ns/mnt")
        .map_err(Error::step("open /proc/self/ns/mnt; is /proc mounted?"))?;
    let own = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(NONE, "/", NONE, private, NONE)
    };
    own().map_err(Error::step(
        "make a mount namespace; in a container the jailer needs CAP_SYS_ADMIN",
    ))?;
    Ok(HostMounts(home))
}

/// Opens /proc. The descriptor stays valid when the process has entered its jail.
pub fn proc() -> io::Result<Dir> {
    Dir::open(Path::new("/proc"))
}

/// Enters a new user namespace in which `owner`, the thread's user, is the superuser. `proc` is /proc.
///
/// # Errors
/// `EINVAL` if the process has other threads.
pub fn enter_user(owner: Owner, proc: &Dir) -> io::Result<()> {
    // The change of the user made this process's files in /proc root's.
    nix::sys::prctl::set_dumpable(true)?;
    unshare(CloneFlags::CLONE_NEWUSER)?;
    // user_namespaces(7): an unprivileged process may write its gid_map only after it has given up setgroups(2).
    for (name, text) in [
        ("setgroups", "deny".to_owned()),
        ("gid_map", format!("0 {} 1", owner.gid)),
        ("uid_map", format!("0 {} 1", owner.uid)),
    ] {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let path = format!("self/{name}");
        let file = openat(proc, path.as_str(), flags, Mode::empty())?;
        File::from(file).write_all(text.as_bytes())?;
    }
    Ok(())
}

/// Enters the network namespace `path`.
pub fn enter_network(path: &Path) -> io::Result<()> {
    let namespace = File::open(path)?;
    Ok(setns(namespace, CloneFlags::CLONE_NEWNET)?)
}

/// Runs `action` in the network namespace `path`, and enters the former one again.
pub fn in_network<T>(path: &Path, action: impl FnOnce() -> T) -> io::Result<T> {
    let home = File::open("/proc/thread-self/ns/net")?;
    enter_network(path)?;
    let result = action();
    setns(home, CloneFlags::CLONE_NEWNET)?;
    Ok(result)
}

/// Mounts the directory on itself, with all mounts below it, and opens it again: a root for [`pivot`].
pub fn mount_on_itself(parent: &Dir, name: &str) -> io::Result<Dir> {
    let dir = parent.enter(name)?;
    let path = by_descriptor(&dir);
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(&path), &path, NONE, bind, NONE)?;
    parent.enter(name)
}

/// Mounts the open file `source` on the open file `target`.
pub fn bind(source: &impl AsFd, target: &impl AsFd) -> io::Result<()> {
    let (source, target) = (by_descriptor(source), by_descriptor(target));
    Ok(mount(Some(&source), &target, NONE, MsFlags::MS_BIND, NONE)?)
}

/// Restricts the mount whose root is the open file `mounted`: no setuid, no exec, and as the flags say.
pub fn restrict(mounted: &impl AsFd, read_only: bool, device: bool) -> io::Result<()> {
    let mut flags =
        MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    flags.set(MsFlags::MS_RDONLY, read_only);
    flags.set(MsFlags::MS_NODEV, !device);
    Ok(mount(NONE, &by_descriptor(mounted), NONE, flags, NONE)?)
}

/// Makes `above`, a mount, this process's `/`, unmounts everything that is not below it, and makes `root`, which is
/// below it, the working directory.
pub fn pivot(above: &Dir, root: &Dir) -> io::Result<()> {
    fchdir(above)?;
    // The old root is mounted over the new one, and unmounted from there (pivot_root(2)).
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    Ok(fchdir(root)?)
}

/// Makes the working directory this process's `/`. As that differs from the root of its mount namespace, the kernel
/// refuses the process a user namespace (user_namespaces(7), EPERM), in which it would have every capability over new
/// namespaces, and could attack much of the kernel's code.
pub fn close_root() -> io::Result<()> {
    Ok(nix::unistd::chroot(".")?)
}
