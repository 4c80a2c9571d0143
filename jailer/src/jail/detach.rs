//! Becomes the monitor in another process. With `--daemonize` and `--new-pid-ns` the jailer exits when the monitor
//! runs. With `--new-user-ns`, which only a process with one thread can enter, a process and not a thread
//! (`guardian.rs`) keeps the privileges to undo a failed start.
//!
//! That process waits at a pipe, which closes by itself when the other process executes the monitor.

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

/// Longest error message of the process that becomes the monitor, in bytes.
const MAX_MESSAGE: u64 = 1 << 16;

/// Flag of clone3(2); libc has it with the width of clone(2)'s flags.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// The monitor's future process, and the descriptors that it needs, opened before the jail is entered.
#[derive(Debug)]
pub struct Detached {
    process: Process,
    null: Option<File>,
    messages: Option<File>,
    group: Option<ForChild>,
}

/// The two sides of a fork.
enum Forked {
    /// The parent, with the process id of the child.
    Parent(Pid),
    /// The child, which becomes the monitor; whether it is in its control group.
    Child(bool),
}

impl Detached {
    /// Prepares `process`; `None` if the jailer's own process becomes the monitor.
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

    /// Returns the same, in the control group `group`.
    pub fn in_group(self, group: Option<ForChild>) -> Self {
        Self { group, ..self }
    }

    /// Runs `last_steps`, which end in execve, in a child. This process writes `pid_file`, and exits when the child has
    /// executed the monitor. If the child fails, `undo` is undone.
    pub fn run(
        self,
        undo: Undo,
        pid_file: PidFile,
        last_steps: impl FnOnce() -> Result<Infallible, Error>,
    ) -> Result<Infallible, Error> {
        let failed = || Error::step("make the monitor's process");
        let (mut failure, failure_end) = pipe().map_err(failed())?;
        let (go, mut go_end) = pipe().map_err(failed())?;
        match self.fork().map_err(failed())? {
            Forked::Child(in_group) => {
                // The parent undoes everything.
                std::mem::forget(undo);
                drop((failure, go_end));
                report(failure_end, self.become_vmm(in_group, go, last_steps))
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
                    // The monitor runs: nothing is undone.
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
            // Else the end of this session leader would send SIGHUP to it (credentials(7)).
            if matches!(forked, Forked::Child(_)) && leader {
                setsid()?;
            }
            return Ok(forked);
        }
        // A child of a session leader is no leader itself, so it never gets a controlling terminal.
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
        // If anything fails here, the pipe closes, and the parent notices.
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

    /// Forks the future monitor, in its control group if the kernel can do that.
    fn duplicate(&self) -> io::Result<Forked> {
        if let Some(group) = &self.group {
            match duplicate_into(group) {
                Ok(Some(child)) => return Ok(Forked::Parent(child)),
                Ok(None) => return Ok(Forked::Child(true)),
                // A kernel before 5.7 cannot do it. An error of the group itself is reported when the child enters it.
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

/// Opens an empty file for messages; a missing directory is made.
fn messages(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    let mut options = File::options();
    let options = options.write(true).create(true).truncate(true).mode(0o640);
    options.custom_flags(libc::O_NOFOLLOW).open(path)
}

/// As `guardian::run_last`, with a process in place of the thread.
pub fn run_guarded(
    undo: Undo,
    last_steps: impl FnOnce() -> Result<Infallible, Error>,
) -> Result<Infallible, Error> {
    let failed = || Error::step("make a process to undo a failed start");
    let (mut failure, mut failure_end) = pipe().map_err(failed())?;
    let (mut done, done_end) = pipe().map_err(failed())?;
    let Some(between) = duplicate().map_err(failed())? else {
        // Not a child of the monitor, which would have to wait for it.
        match duplicate() {
            Ok(None) => {}
            _ => std::process::exit(0),
        }
        drop((failure_end, done));
        let mut byte = [0];
        match failure.read(&mut byte) {
            Ok(1) => {
                // This closes its taps, which keep a bridge in use.
                drop(last_steps);
                drop(undo);
            }
            // The other process has executed the monitor, or was killed: then `jailer clean` removes what it left.
            _ => std::mem::forget(undo),
        }
        drop(done_end);
        std::process::exit(0)
    };
    let waited = waitpid(between, None);
    // The other process undoes everything.
    std::mem::forget(undo);
    drop((failure, done_end));
    waited.map_err(|e| failed()(e.into()))?;
    let Err(error) = last_steps();
    failure_end.write_all(b"f").map_err(failed())?;
    let _ = done.read(&mut [0]);
    Err(error)
}

/// Sends the error to the parent, and exits.
fn report(to: File, error: Error) -> ! {
    let mut to = to;
    // If the parent has ended, no one reads this.
    let _ = to.write_all(crate::error::chain(&error).as_bytes());
    std::process::exit(1)
}

fn pipe() -> io::Result<(File, File)> {
    let (read, write): (OwnedFd, OwnedFd) = pipe2(OFlag::O_CLOEXEC)?;
    Ok((read.into(), write.into()))
}

/// Forks a child into `group`; returns `None` in the child.
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
    // SAFETY: without CLONE_VM the child has memory of its own, as after fork(2). This process has one thread, so the
    // child finds no lock held. It needs nothing else that fork(3) does: the C library asks the kernel for the thread's
    // id.
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

/// Forks; returns `None` in the child.
#[expect(unsafe_code, reason = "fork")]
fn duplicate() -> Result<Option<Pid>, io::Error> {
    // SAFETY: this process has one thread, so the child finds no lock held.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { child }) => Ok(Some(child)),
        Ok(ForkResult::Child) => Ok(None),
        Err(e) => Err(Errno::into(e)),
    }
}
