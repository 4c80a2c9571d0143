//! A sandbox for a program that reads untrusted files: the user nobody, no privilege, no network, a PID namespace of
//! its own, and of the host's files only `/usr`, read-only. The program gets the files it works on as open descriptors.
//!
//! Everything here runs between fork and exec of [`crate::sys::tool::Tool`], in a process with one thread.

use crate::confine::privileges;
use crate::sys::dir::Owner;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, mknod};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, pivot_root};
use std::fs;
use std::io;
use std::path::Path;

/// The user nobody and the group nogroup.
pub const NOBODY: Owner = Owner {
    uid: Uid::from_raw(65534),
    gid: Gid::from_raw(65534),
};

/// Number of the device that the program finds as `/device`.
pub type Device = libc::dev_t;

const NONE: Option<&str> = None;
/// Most address space of a program, in bytes; qemu-img takes a few hundred MiB.
pub const MAX_MEMORY: u64 = 4 << 30;
const MAX_FILES: u64 = 256;

/// Enters the sandbox. `root` is an empty directory of the host to mount on; other processes do not see the mounts. No
/// file can become longer than `max_file` bytes. After an error the process must end.
pub fn enter(root: &Path, device: Option<Device>, max_file: u64) -> io::Result<()> {
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWPID;
    unshare(own)?;
    continue_in_child()?;
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    mount_files(root, device)?;
    drop_rights(&[
        (Resource::RLIMIT_AS, MAX_MEMORY),
        (Resource::RLIMIT_FSIZE, max_file),
        (Resource::RLIMIT_NOFILE, MAX_FILES),
    ])
}

/// Becomes the user nobody without any privilege, and limits the process's resources. It writes no core dump. After an
/// error the process must end.
pub fn drop_rights(limits: &[(Resource, u64)]) -> io::Result<()> {
    for (resource, limit) in [(Resource::RLIMIT_CORE, 0)].iter().chain(limits) {
        setrlimit(*resource, *limit, *limit)?;
    }
    privileges::drop_all(NOBODY, None)
}

/// Continues in a child, because only a child is in the new PID namespace. The parent waits for it, and ends with its
/// status.
#[expect(unsafe_code, reason = "fork")]
fn continue_in_child() -> io::Result<()> {
    // SAFETY: this process has one thread, so no lock is held that the child could wait for.
    let child = match unsafe { fork() }? {
        ForkResult::Child => return Ok(()),
        ForkResult::Parent { child } => child,
    };
    // The process that started this one waits until its pipe is closed.
    // SAFETY: this process uses no descriptor any more.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    let status = match ended(child) {
        Ok(WaitStatus::Exited(_, status)) => status,
        _ => 1,
    };
    // SAFETY: ends the process at once.
    unsafe { libc::_exit(status) }
}

/// Waits for the end of `child`.
pub fn ended(child: Pid) -> nix::Result<WaitStatus> {
    loop {
        match waitpid(child, None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other,
        }
    }
}

fn mount_files(root: &Path, device: Option<Device>) -> io::Result<()> {
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(NONE, "/", NONE, private, NONE)?;
    let mode = Some("mode=755,size=1m");
    mount(Some("tmpfs"), root, Some("tmpfs"), MsFlags::empty(), mode)?;
    for name in ["usr", "lib", "lib32", "lib64", "bin"] {
        let (from, to) = (Path::new("/").join(name), root.join(name));
        let Ok(found) = from.symlink_metadata() else {
            continue;
        };
        if found.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(from)?, to)?;
        } else {
            fs::create_dir(&to)?;
            bind(&from, &to)?;
        }
    }
    let cache = "/etc/ld.so.cache";
    fs::create_dir(root.join("etc"))?;
    if Path::new(cache).exists() {
        let to = root.join("etc/ld.so.cache");
        fs::write(&to, "")?;
        bind(Path::new(cache), &to)?;
    }
    if let Some(device) = device {
        let path = root.join("device");
        mknod(&path, SFlag::S_IFBLK, Mode::S_IRUSR | Mode::S_IWUSR, device)?;
        std::os::unix::fs::chown(path, Some(NOBODY.uid.as_raw()), Some(NOBODY.gid.as_raw()))?;
    }
    fs::create_dir(root.join("proc"))?;
    let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let proc = root.join("proc");
    mount(Some("proc"), &proc, Some("proc"), plain, NONE)?;
    std::env::set_current_dir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    std::env::set_current_dir("/")
}

/// Mounts `from` on `to`, read-only.
fn bind(from: &Path, to: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    mount(Some(from), to, NONE, flags, NONE)?;
    let flags = MsFlags::MS_BIND
        | MsFlags::MS_REMOUNT
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV;
    Ok(mount(NONE, to, NONE, flags, NONE)?)
}
