//! Files, FIFOs and terminals that this process writes to without waiting for a reader.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Waits until `output` can be written, for at most `timeout`. Returns whether it can.
pub(crate) fn is_ready(output: BorrowedFd<'_>, timeout: PollTimeout) -> bool {
    let mut ready = [PollFd::new(output, PollFlags::POLLOUT)];
    !matches!(poll(&mut ready, timeout), Ok(0) | Err(Errno::EINTR))
}

/// Writes `line` to a descriptor that others read, unless it is full: a reader that does not read must not block the
/// writer.
///
/// # Errors
/// An error of the descriptor; `WouldBlock` if it is full.
pub fn write_unless_full(mut to: impl Write + AsFd, line: &str) -> io::Result<()> {
    match is_ready(to.as_fd(), PollTimeout::ZERO) {
        true => to.write_all(line.as_bytes()),
        false => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Opens a file or FIFO for appending, and creates a missing file. Neither a FIFO without a reader nor a full FIFO blocks.
///
/// # Errors
/// The file cannot be opened.
pub fn open_nonblocking(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .custom_flags(libc::O_NONBLOCK)
        .create(true)
        // Opened for reading too, a FIFO needs no other reader.
        .read(true)
        .append(true)
        .open(path)
}
