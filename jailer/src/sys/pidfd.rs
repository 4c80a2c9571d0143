//! Process descriptors: each refers to one process, even after its id is reused, and becomes readable when the process
//! ends (pidfd_open(2)).

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io;
use std::os::fd::{AsFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// A process.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// Opens the process with the id `id`.
    ///
    /// # Errors
    /// `ESRCH` if there is none.
    #[expect(unsafe_code, reason = "pidfd_open has no safe wrapper")]
    pub fn open(id: u32) -> io::Result<Self> {
        // SAFETY: the call takes two numbers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
        match RawFd::try_from(fd) {
            // SAFETY: the call returned a new descriptor, which nothing else owns.
            Ok(fd) if fd >= 0 => Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) })),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Waits until the process has ended, but not longer than `limit`; returns whether it has.
    pub fn wait(&self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            // Rounded up, so that the last wait is not a busy one.
            let left = left.as_millis().saturating_add(u128::from(!left.is_zero()));
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, timeout) {
                Ok(0) if Instant::now() >= end => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(e) => return Err(e.into()),
            }
        }
    }
}
