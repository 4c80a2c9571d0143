//! Becoming the VMM in another process: `--daemonize` and `--new-pid-ns`, where the jailer ends when the
//! VMM runs, and `--new-user-ns`, which only a process of one thread can enter, so that a process and
//! not a thread (`guardian.rs`) must keep the right to take things back.
//!
//! The one that guards waits at a pipe that closes by itself when the other executes the VMM.

use crate::error::Error;
use crate::jail::cgroup::ForChild;
use crate::jail::chroot::PidFile;
use crate::jail::options::Process;
use crate::undo::Undo;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getpid, getsid, pipe2, setsid};
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// Longest message of the process that was to become the VMM, in bytes.
const MAX_MESSAGE: u64 = 1 << 16;

/// Flag of clone3(2), which libc has with the width of clone(2)'s.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// What the VMM's process needs of the host before the jail is entered.
#[derive(Debug)]
pub struct Detached {
    process: Process,
    null: Option<File>,
    messages: Option<File>,
    group: Option<ForChild>,
}

/// What has become of this process.
enum Forked {
    /// The one that guards, of the VMM's to be.
    Parent(Pid),
    /// The VMM's to be; whether it is in its control group already.
    Child(bool),
}

impl Detached {
    /// Prepares `process`; `None` if the jailer's own process becomes the VMM.
    ///
    /// # Errors
    /// [`Error`], if there is no /dev/null.
    pub fn new(process: Process) -> Result<Option<Self>, Error> {
        if !process.daemonize && !process.new_pid_ns {
            return Ok(None);
        }
        let open = || File::options().read(true).write(true).open("/dev/null");
        let null = process.daemonize.then(open).transpose();
        let messages = process.messages.as_deref().map(|path| {
            let made = messages(path);
            made.map_err(Error::step(format!("write {}", path.display())))
        });
        let messages = messages.transpose()?;
        Ok(Some(Self {
            process,
            group: None,
            messages,
            null: null.map_err(Error::step("open /dev/null"))?,
        }))
    }

    /// The same in the control group `group`.
    pub fn in_group(self, group: Option<ForChild>) -> Self {
        Self { group, ..self }
    }

    /// Runs `last_steps`, which end in execve, in a child, and ends this process when they have come to
    /// that, with `pid_file` written. If they fail, `undo` is taken back.
    pub fn run(
        self,
        undo: Undo,
        pid_file: PidFile,
        last_steps: impl FnOnce() -> Result<Infallible, Error>,
    ) -> Result<Infallible, Error> {
        let failed = || Error::step("make the process of the VMM");
        let (mut failure, failure_end) = pipe().map_err(failed())?;
        let (go, mut go_end) = pipe().map_err(failed())?;
        match self.fork().map_err(failed())? {
            Forked::Child(in_group) => {
                // The parent's to take back.
                std::mem::forget(undo);
                drop((failure, go_end));
                tell(failure_end, self.become_vmm(in_group, go, last_steps))
            }
            Forked::Parent(child) => {
                drop((failure_end, go));
                pid_file.write(child.as_raw().unsigned_abs())?;
                go_end.write_all(b"g").map_err(failed())?;
                let mut message = String::new();
                let read = (&mut failure)
                    .take(MAX_MESSAGE)
                    .read_to_string(&mut message);
                read.map_err(failed())?;
                if message.is_empty() {
                    // It runs: nothing is to be taken back.
                    std::process::exit(0);
                }
                Err(Error::Child(message))
            }
        }
    }

    fn fork(&self) -> io::Result<Forked> {
        let new_pid_ns = || match self.process.new_pid_ns {
            true => unshare(CloneFlags::CLONE_NEWPID),
            false => Ok(()),
        };
        if !self.process.daemonize {
            new_pid_ns()?;
            let leader = getsid(None)? == getpid();
            let forked = self.duplicate()?;
            // Else the end of this process would hang up on it (credentials(7)).
            if matches!(forked, Forked::Child(_)) && leader {
                setsid()?;
            }
            return Ok(forked);
        }
        // A child of a session's leader, which is none itself and so never gets a terminal.
        let (mut answer, mut question) = pipe()?;
        if let Some(between) = duplicate()? {
            drop(question);
            let mut bytes = [0; 4];
            let read = answer.read_exact(&mut bytes);
            waitpid(between, None)?;
            read?;
            return Ok(Forked::Parent(Pid::from_raw(i32::from_ne_bytes(bytes))));
        }
        drop(answer);
        // Whatever fails here, the pipe closes and tells.
        let made = setsid().and_then(|_| new_pid_ns());
        let forked = made
            .map_err(io::Error::from)
            .and_then(|()| self.duplicate());
        match forked {
            Ok(child @ Forked::Child(_)) => Ok(child),
            Ok(Forked::Parent(child)) => {
                let _ = question.write_all(&child.as_raw().to_ne_bytes());
                std::process::exit(0)
            }
            Err(_) => std::process::exit(1),
        }
    }

    /// The process of the VMM to be, in its control group if the kernel makes it there.
    fn duplicate(&self) -> io::Result<Forked> {
        if let Some(group) = &self.group {
            match duplicate_into(group) {
                Ok(Some(child)) => return Ok(Forked::Parent(child)),
                Ok(None) => return Ok(Forked::Child(true)),
                // A kernel from before 5.7 cannot, and what is wrong with the group its entry tells.
                Err(_) => {}
            }
        }
        Ok(match duplicate()? {
            Some(child) => Forked::Parent(child),
            None => Forked::Child(self.group.is_none()),
        })
    }

    fn become_vmm(
        self,
        in_group: bool,
        mut go: File,
        last_steps: impl FnOnce() -> Result<Infallible, Error>,
    ) -> Error {
        let mut ready = || -> io::Result<()> {
            if let Some(null) = &self.null {
                nix::unistd::dup2_stdin(null)?;
                nix::unistd::dup2_stdout(null)?;
                nix::unistd::dup2_stderr(self.messages.as_ref().unwrap_or(null))?;
            }
            go.read_exact(&mut [0])
        };
        if let Err(e) = ready() {
            return Error::step("leave the terminal")(e);
        }
        if let Some(group) = self.group.as_ref().filter(|_| !in_group)
            && let Err(e) = group.enter()
        {
            return e;
        }
        let Err(error) = last_steps();
        error
    }
}

/// An empty file for messages, in a directory that is made if it is not there.
fn messages(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o640);
    options.custom_flags(libc::O_NOFOLLOW).open(path)
}

/// As `guardian::run_last`, with a process to guard.
pub fn run_guarded(
    undo: Undo,
    last_steps: impl FnOnce() -> Result<Infallible, Error>,
) -> Result<Infallible, Error> {
    let failed = || Error::step("make a process to guard the start");
    let (mut failure, mut failure_end) = pipe().map_err(failed())?;
    let (mut done, done_end) = pipe().map_err(failed())?;
    let Some(between) = duplicate().map_err(failed())? else {
        // Not a child of the VMM's, which would have to wait for it.
        match duplicate() {
            Ok(None) => {}
            _ => std::process::exit(0),
        }
        drop((failure_end, done));
        let mut byte = [0];
        match failure.read(&mut byte) {
            Ok(1) => {
                // Its taps with it, which keep a bridge in use.
                drop(last_steps);
                drop(undo);
            }
            // Executed, or killed: then it is for `jailer clean`.
            _ => std::mem::forget(undo),
        }
        drop(done_end);
        std::process::exit(0)
    };
    let waited = waitpid(between, None);
    // The guard's to take back.
    std::mem::forget(undo);
    drop((failure, done_end));
    waited.map_err(|e| failed()(e.into()))?;
    let Err(error) = last_steps();
    failure_end.write_all(b"f").map_err(failed())?;
    let _ = done.read(&mut [0]);
    Err(error)
}

/// Tells the guard why there is no VMM, and ends.
fn tell(to: File, error: Error) -> ! {
    let mut to = to;
    // If the guard has gone there is nobody to tell.
    let _ = to.write_all(crate::error::chain(&error).as_bytes());
    std::process::exit(1)
}

fn pipe() -> io::Result<(File, File)> {
    let (read, write): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((read.into(), write.into()))
}

/// The child, in `group`; `None` in the child.
#[expect(unsafe_code, reason = "clone3 has no wrapper")]
fn duplicate_into(group: &ForChild) -> io::Result<Option<Pid>> {
    let descriptor = u64::try_from(group.as_fd().as_raw_fd()).map_err(io::Error::other)?;
    let signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // struct clone_args: flags, then exit_signal as the fifth field, cgroup as the eleventh and last.
    let arguments: [u64; 11] = [
        CLONE_INTO_CGROUP,
        0,
        0,
        0,
        signal,
        0,
        0,
        0,
        0,
        0,
        descriptor,
    ];
    // SAFETY: without CLONE_VM the child has memory of its own, as after fork(2), and this process has one thread: no
    // lock is held by another that the child lacks. Of what fork(3) does beside, the child needs nothing: the C library
    // asks the kernel for its thread's number.
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw const arguments,
            size_of_val(&arguments),
        )
    };
    match i32::try_from(child) {
        Ok(0) => Ok(None),
        Ok(child) if child > 0 => Ok(Some(Pid::from_raw(child))),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The child; `None` in the child.
#[expect(unsafe_code, reason = "fork")]
fn duplicate() -> Result<Option<Pid>, io::Error> {
    // SAFETY: this process has one thread: no lock is held by another that the child lacks.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => Ok(Some(child)),
        Ok(ForkResult::Child) => Ok(None),
        Err(e) => Err(Errno::into(e)),
    }
}
