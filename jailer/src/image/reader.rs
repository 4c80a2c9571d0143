//! The process that reads an image: `bantam-image-reader`, as an unprivileged user in an empty root directory, with no
//! environment and no descriptors but the image, for reading, and the write end of a pipe.
//!
//! Everything here up to exec runs in the child of fork; the program itself adds a seccomp filter before it reads the
//! first byte.

use crate::confine::sandbox::{self, MAX_MEMORY};
use crate::error::Error;
use crate::image::frames::{self, CANNOT_CONFINE, DAMAGED, Mark};
use crate::image::program;
use crate::sys::dir::Dir;
use crate::undo::Undo;
use crate::undo::state;
use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::Resource;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chroot, execveat, fchdir, fork, getppid, pipe2};
use std::convert::Infallible;
use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

/// Time limit of the reader, long enough for a slow file system over a network.
const LIMIT: Duration = Duration::from_secs(120);
/// Processor time the reader may take, in seconds.
const PROCESSOR: u64 = 30;
/// Memory the reader may write, in bytes; most is the map of an ext4 journal.
const MEMORY: u64 = 1 << 30;
/// Size of the pipe, in bytes: the default of /proc/sys/fs/pipe-max-size.
const PIPE: libc::c_int = 1 << 20;
/// Interval of checks for a signal while the reader sends nothing, in milliseconds.
const TICK: u16 = 20;
/// Time limit for the reader to end after its last frame.
const PATIENCE: Duration = Duration::from_secs(3);

/// A running reader. Dropping it kills the process.
#[derive(Debug)]
pub struct Reader {
    child: Option<Pid>,
    from: File,
    end: Instant,
}

impl Reader {
    /// Starts the program that reads `image`.
    ///
    /// # Errors
    /// [`Error::Problems`] if the program is not installed; [`Error::Step`] if the host refuses a process.
    pub fn start(image: File) -> Result<Self, Error> {
        let program = program::open()?;
        let empty = state::directory("empty")?;
        let start = || -> io::Result<Self> {
            let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
            // A larger pipe means fewer turns; the host may refuse it.
            let _ = fcntl(&from, FcntlArg::F_SETPIPE_SZ(PIPE));
            fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let parent = nix::unistd::getpid();
            let child = in_child(|| {
                if use_streams(&image, &to).is_ok() {
                    let Err(e) = become_reader(&program, &empty, parent);
                    let text = format!("its reader could not be started: {e}");
                    let mut frame = Vec::new();
                    let _ = frames::write(&mut frame, Mark::Error, text.as_bytes());
                    let _ = nix::unistd::write(io::stdout(), &frame);
                }
            })?;
            Ok(Self {
                child: Some(child),
                from: from.into(),
                end: Instant::now() + LIMIT,
            })
        };
        start().map_err(Error::step("start the process that reads an image"))
    }

    /// Fills `to` from the pipe; returns `None` if the reader has ended or exceeded its time.
    ///
    /// # Errors
    /// [`Error`], if reading fails or a signal is pending.
    pub fn fill(&mut self, to: &mut [u8], undo: &mut Undo) -> Result<Option<()>, Error> {
        let failed = || Error::step("receive from the process that reads an image");
        let mut filled = 0;
        while filled < to.len() {
            let room = to.get_mut(filled..).unwrap_or_default();
            match (&self.from).read(room) {
                Ok(0) => return Ok(None),
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    undo.checkpoint()?;
                    if Instant::now() >= self.end {
                        return Ok(None);
                    }
                    let mut fds = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
                    match poll(&mut fds, PollTimeout::from(TICK)) {
                        Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                        Err(e) => return Err(failed()(e.into())),
                    }
                }
                Err(e) => return Err(failed()(e)),
            }
        }
        Ok(Some(()))
    }

    /// Returns why the answer is incomplete.
    pub fn verdict(mut self) -> String {
        if Instant::now() >= self.end {
            return format!("reading it takes longer than {} s", LIMIT.as_secs());
        }
        let asked = Instant::now();
        let status = loop {
            let status = self
                .child
                .map(|child| waitpid(child, Some(WaitPidFlag::WNOHANG)));
            match status {
                Some(Ok(WaitStatus::StillAlive)) if asked.elapsed() < PATIENCE => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                Some(Ok(WaitStatus::StillAlive)) | None => break None,
                Some(status) => {
                    self.child = None;
                    break status.ok();
                }
            }
        };
        match status {
            Some(WaitStatus::Signaled(_, Signal::SIGXCPU | Signal::SIGKILL, _)) => {
                format!("reading it takes more than {PROCESSOR} s of a processor")
            }
            Some(WaitStatus::Signaled(_, signal, _)) => {
                format!("its reader crashed ({signal}): {DAMAGED}")
            }
            Some(WaitStatus::Exited(_, CANNOT_CONFINE)) => {
                "this host cannot confine the process that reads it".into()
            }
            _ => "its reader ended early".into(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if let Some(child) = self.child {
            let _ = kill(child, Signal::SIGKILL);
            let _ = sandbox::ended(child);
        }
    }
}

/// Runs `work` in a child of this process, which ends with it.
#[expect(unsafe_code, reason = "fork")]
fn in_child(work: impl FnOnce()) -> io::Result<Pid> {
    // SAFETY: this process has one thread, so the child finds no lock held.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            work();
            // SAFETY: ends the process at once, and undoes nothing of the parent's.
            unsafe { libc::_exit(CANNOT_CONFINE) }
        }
    }
}

/// Makes `image` the standard input, and `to` the standard output. A Rust program needs all three streams to be open.
fn use_streams(image: &File, to: &OwnedFd) -> io::Result<()> {
    nix::unistd::dup2_stdin(image)?;
    nix::unistd::dup2_stdout(to)?;
    Ok(nix::unistd::dup2_stderr(to)?)
}

/// Takes everything from this process that reading its standard input and writing to its standard output does not need,
/// and executes `program`.
fn become_reader(program: &OwnedFd, empty: &Dir, parent: Pid) -> io::Result<Infallible> {
    fchdir(empty)?;
    chroot(".")?;
    SigSet::empty().thread_set_mask()?;
    sandbox::drop_rights(&[
        (Resource::RLIMIT_AS, MAX_MEMORY),
        (Resource::RLIMIT_DATA, MEMORY),
        (Resource::RLIMIT_CPU, PROCESSOR),
        (Resource::RLIMIT_FSIZE, 0),
    ])?;
    // After the change of the user, which resets it.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    close_all_but(program)?;
    let arguments = [c"bantam-image-reader"];
    let environment: [&CStr; 0] = [];
    // By its descriptor: this root directory has no files.
    Ok(execveat(
        program,
        c"",
        &arguments,
        &environment,
        AtFlags::AT_EMPTY_PATH,
    )?)
}

/// Closes every descriptor but the standard streams and `kept`, which closes itself on exec.
#[expect(unsafe_code, reason = "descriptors of other owners in this process")]
fn close_all_but(kept: &OwnedFd) -> io::Result<()> {
    let kept = kept.as_raw_fd().unsigned_abs();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept + 1, u32::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: this process uses no other descriptor before it executes the program or ends.
        let closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        if closed == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
