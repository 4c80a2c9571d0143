//! Files, FIFOs and terminals that this process writes to without waiting for a reader.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Whether `output` takes output, within `patience`.
pub(crate) fn is_ready(output: BorrowedFd<'_>, patience: PollTimeout) -> bool {
    let mut ready = [PollFd::new(output, PollFlags::POLLOUT)];
    !matches!(poll(&mut ready, patience), Ok(0) | Err(Errno::EINTR))
}

/// Writes `line` to a descriptor that others read, unless it is full: whoever tells of something must not be held
/// up by somebody who does not listen.
///
/// # Errors
/// What the host says; `WouldBlock` if it is full.
pub fn write_unless_full(mut to: impl Write + AsFd, line: &str) -> io::Result<()> {
    match is_ready(to.as_fd(), PollTimeout::ZERO) {
        true => to.write_all(line.as_bytes()),
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Opens a file or FIFO for appending, creating the file if there is none, so that neither a FIFO without a
/// reader nor a full one blocks.
///
/// # Errors
/// What the host says.
pub fn open_nonblocking(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .custom_flags(libc::O_NONBLOCK)
        .create(true)
        // A FIFO that is open for reading too needs no reader to be there.
        .read(true)
        .append(true)
        .open(path)
}
