//! Locks on images. A guest's monitor holds one for as long as it runs, and a command while it changes the image. They
//! are open file description locks: they end with the open file, and hold between the clients of an NFS server.

use crate::sys::dir::by_descriptor;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt as _;

fn whole(kind: libc::c_int) -> io::Result<libc::flock> {
    let short = |n: libc::c_int| libc::c_short::try_from(n).map_err(io::Error::other);
    Ok(libc::flock {
        l_type: short(kind)?,
        l_whence: short(libc::SEEK_SET)?,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    })
}

fn kind(shared: bool) -> libc::c_int {
    if shared { libc::F_RDLCK } else { libc::F_WRLCK }
}

/// Returns whether another process's lock conflicts with the one that the monitor would take. `fd` may be an `O_PATH`
/// descriptor. If the answer is unknown here, the monitor will report the conflict.
pub fn in_use(fd: &impl AsFd, shared: bool) -> bool {
    let (Ok(mut lock), Ok(unlocked)) =
        (whole(kind(shared)), libc::c_short::try_from(libc::F_UNLCK))
    else {
        return false;
    };
    let mut options = OpenOptions::new();
    let options = options.read(true).custom_flags(libc::O_NONBLOCK);
    options.open(by_descriptor(fd)).is_ok_and(|file| {
        fcntl(&file, FcntlArg::F_OFD_GETLK(&mut lock)).is_ok() && lock.l_type != unlocked
    })
}

/// Locks `file` as the monitor would: shared, for which it must be open for reading, or exclusively, for which it must
/// be open for writing. Returns `false` if another process's lock conflicts.
pub fn lock(file: &File, shared: bool) -> io::Result<bool> {
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole(kind(shared))?)) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(e) => Err(e.into()),
    }
}
