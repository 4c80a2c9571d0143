//! Cloning a file by sharing its blocks.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

/// Makes `to` a clone of `from`: the file system shares their blocks.
///
/// # Errors
/// `Unsupported` if the file system cannot clone.
#[expect(unsafe_code, reason = "an ioctl of file systems")]
pub fn clone_file(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: both descriptors are open, and no memory of this process is read or written.
    let done = unsafe { libc::ioctl(to.as_raw_fd(), libc::FICLONE, from.as_raw_fd()) };
    match done {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            e if matches!(
                e.raw_os_error(),
                Some(libc::EXDEV | libc::EOPNOTSUPP | libc::ENOTTY | libc::EINVAL)
            ) =>
            {
                Err(io::Error::new(io::ErrorKind::Unsupported, e))
            }
            e => Err(e),
        },
    }
}
