//! Drops every privilege of this thread permanently, and checks beforehand which files the unprivileged user may open.
//!
//! System calls are made directly: the C library's functions change all threads of the process, but the thread that
//! undoes a failed start keeps its privileges (see `jail/guardian.rs`).

use crate::confine::namespaces;
use crate::sys::dir::{Dir, Owner, ROOT};
use nix::errno::Errno;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

/// Number of capabilities that the kernel can have at most: the sets are 64 bits wide.
const MAX_CAPABILITIES: libc::c_ulong = 64;
const CAP_DAC_OVERRIDE: u32 = 1;
const CAP_DAC_READ_SEARCH: u32 = 2;
/// `_LINUX_CAPABILITY_VERSION_3`: a set has two words.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// One word of each of the three sets (capget(2)).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

type Capabilities = [CapabilityWord; 2];

const NO_CAPABILITIES: Capabilities = [CapabilityWord {
    effective: 0,
    permitted: 0,
    inheritable: 0,
}; 2];

/// Becomes `owner` without any capability or a way to regain one, and verifies that; the working directory becomes `/`.
/// With `user_ns`, which is /proc, `owner` is the superuser of a new user namespace; the process must have one thread.
///
/// # Errors
/// An error of the host, or that a privilege could be regained.
pub fn drop_all(mut owner: Owner, user_ns: Option<&Dir>) -> io::Result<()> {
    drop_groups()?;
    leave_keyring()?;
    if let Some(proc) = user_ns {
        become_user(owner)?;
        // There this thread has every capability again, over nothing of the host's; they are dropped below.
        namespaces::enter_user(owner, proc)?;
        owner = ROOT;
    }
    namespaces::close_root()?;
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
    prctl(
        libc::PR_CAP_AMBIENT,
        libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong,
        0,
    )?;
    for capability in 0..MAX_CAPABILITIES {
        match prctl(libc::PR_CAPBSET_DROP, capability, 0) {
            Ok(_) => {}
            // The kernel has no more capabilities.
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => break,
            Err(e) => return Err(e),
        }
    }
    become_user(owner)?;
    set_capabilities(&NO_CAPABILITIES)?;
    verify(owner)
}

fn become_user(owner: Owner) -> io::Result<()> {
    set_ids(libc::SYS_setresgid, owner.gid.as_raw())?;
    set_ids(libc::SYS_setresuid, owner.uid.as_raw())
}

/// Tries to regain what [`drop_all`] dropped.
fn verify(owner: Owner) -> io::Result<()> {
    let left = |what: &str| Err(io::Error::other(format!("{what} could be regained")));
    if !owner.uid.is_root() && set_ids(libc::SYS_setresuid, 0).is_ok() {
        return left("the superuser's id");
    }
    if owner.gid.as_raw() != 0 && set_ids(libc::SYS_setresgid, 0).is_ok() {
        return left("the superuser's group");
    }
    if drop_groups().is_ok() {
        return left("the right to set groups");
    }
    if capabilities()? != NO_CAPABILITIES {
        return left("a capability");
    }
    if prctl(libc::PR_CAPBSET_READ, CAP_DAC_OVERRIDE.into(), 0)? != 0 {
        return left("a capability, by executing a file,");
    }
    Ok(())
}

/// Leaves all supplementary groups.
#[expect(unsafe_code, reason = "for this thread only there is no safe wrapper")]
pub fn drop_groups() -> io::Result<()> {
    // SAFETY: no group is read from the null list.
    checked(unsafe { libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>()) })
        .map(drop)
}

/// Joins a new, empty session keyring: a process has the keys of its session's keyring, whatever its user
/// (session-keyring(7)).
#[expect(unsafe_code, reason = "keyctl has no safe wrapper")]
fn leave_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_int = 1;
    let unnamed = std::ptr::null::<libc::c_char>();
    // SAFETY: no name is read from the null pointer.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, unnamed) };
    match checked(joined) {
        // This kernel has no keyrings, or a container's filter denies them to this process and all that it executes.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => Ok(()),
        other => other.map(drop),
    }
}

/// Returns whether `owner` may open the file `file`, which may be an `O_PATH` descriptor, by its own mode and ACL; with
/// `write`, for writing, too. The caller has left its groups.
///
/// # Errors
/// Errors other than missing permission, e.g. `EROFS`.
pub fn may_open(file: impl AsFd, owner: Owner, write: bool) -> io::Result<bool> {
    let before = capabilities()?;
    let mut lowered = before;
    // A jail's superuser has no capability either.
    if let Some(word) = lowered.first_mut() {
        word.effective &= !(1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH);
    }
    set_capabilities(&lowered)?;
    let root = (set_fs_id(libc::SYS_setfsgid, owner.gid.as_raw()), {
        set_fs_id(libc::SYS_setfsuid, owner.uid.as_raw())
    });
    let mode = libc::R_OK | if write { libc::W_OK } else { 0 };
    let answer = access(file, mode);
    set_fs_id(libc::SYS_setfsuid, root.1);
    set_fs_id(libc::SYS_setfsgid, root.0);
    set_capabilities(&before)?;
    match answer {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EACCES | libc::EPERM)) => Ok(false),
        Err(e) => Err(e),
    }
}

#[expect(
    unsafe_code,
    reason = "faccessat2 with a descriptor has no safe wrapper"
)]
fn access(file: impl AsFd, mode: libc::c_int) -> io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | libc::AT_EACCESS;
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: the path is a static string, and is only read.
    checked(unsafe { libc::syscall(libc::SYS_faccessat2, fd, c"".as_ptr(), mode, flags) }).map(drop)
}

/// Sets the id; returns the former one.
#[expect(unsafe_code, reason = "for this thread only there is no safe wrapper")]
fn set_fs_id(call: libc::c_long, id: u32) -> u32 {
    // SAFETY: setfsuid and setfsgid take and return numbers.
    let former = unsafe { libc::syscall(call, id) };
    u32::try_from(former).unwrap_or(id)
}

#[expect(unsafe_code, reason = "for this thread only there is no safe wrapper")]
fn set_ids(call: libc::c_long, id: u32) -> io::Result<()> {
    // SAFETY: setresuid and setresgid take numbers.
    checked(unsafe { libc::syscall(call, id, id, id) }).map(drop)
}

#[expect(unsafe_code, reason = "capget has no safe wrapper")]
fn capabilities() -> io::Result<Capabilities> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut words = NO_CAPABILITIES;
    // SAFETY: header and words live until the call returns, and have the layout and the number of words that this
    // version of the call writes.
    checked(unsafe { libc::syscall(libc::SYS_capget, &mut header, words.as_mut_ptr()) })?;
    Ok(words)
}

#[expect(unsafe_code, reason = "capset has no safe wrapper")]
fn set_capabilities(words: &Capabilities) -> io::Result<()> {
    let mut header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    // SAFETY: as in `capabilities`; the words are only read.
    checked(unsafe { libc::syscall(libc::SYS_capset, &mut header, words.as_ptr()) }).map(drop)
}

#[expect(unsafe_code, reason = "these options of prctl have no safe wrapper")]
fn prctl(option: libc::c_int, a: libc::c_ulong, b: libc::c_ulong) -> io::Result<libc::c_long> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers, and zero where they take nothing.
    checked(unsafe { libc::prctl(option, a, b, none, none) }.into())
}

fn checked(returned: libc::c_long) -> io::Result<libc::c_long> {
    match returned {
        -1 => Err(Errno::last().into()),
        other => Ok(other),
    }
}
