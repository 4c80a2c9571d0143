//! The process that reads an image: a copy of this one that becomes nobody's and keeps nothing but the image,
//! for reading, and the end of a pipe. It sees no file, has no environment, and may do little more than read,
//! write, ask for memory and end. What it may use is bounded.

use crate::error::Error;
use crate::image::disk::Window;
use crate::image::finder::{self, Taker};
use crate::image::frames::{self, Mark};
use crate::state;
use crate::storage::sandbox::{self, MAX_MEMORY};
use crate::undo::Undo;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, chroot, fchdir, fork, getppid, pipe2};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd as _, FromRawFd as _};
use std::panic::PanicHookInfo;
use std::time::{Duration, Instant};

/// How long it may take. A slow file system over a network has its time in this.
const LIMIT: Duration = Duration::from_secs(120);
/// How much processor time it may take, in seconds.
const PROCESSOR: u64 = 30;
/// Memory that it may write, in bytes: an ext4 journal's map takes most.
const MEMORY: u64 = 1 << 30;
/// Room in the pipe, in bytes: what any process may have (/proc/sys/fs/pipe-max-size).
const PIPE: libc::c_int = 1 << 20;
/// How often a signal is asked for while nothing comes, in milliseconds.
const TICK: u16 = 20;
/// How long it may take to end after its last word.
const PATIENCE: Duration = Duration::from_secs(3);

/// The helper, which ends with this.
#[derive(Debug)]
pub struct Helper {
    child: Option<Pid>,
    from: File,
    end: Instant,
}

impl Helper {
    /// Has `image` read.
    ///
    /// # Errors
    /// [`Error`]: the host refuses a process.
    pub fn start(mut image: File) -> Result<Self, Error> {
        let nowhere = state::directory("empty")?;
        let mut start = || -> io::Result<Self> {
            let len = image.seek(io::SeekFrom::End(0))?;
            let rules = rules().map_err(io::Error::other)?;
            let (from, to) = pipe2(OFlag::O_CLOEXEC)?;
            let to = File::from(to);
            // Fewer turns; the host may not grant it.
            let _ = fcntl(&from, FcntlArg::F_SETPIPE_SZ(PIPE));
            fcntl(&from, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
            let parent = nix::unistd::getpid();
            let child = duplicate(|| {
                let confined = confine(&image, &to, &nowhere, parent, &rules);
                confined.map(|(image, to)| work(Window::new(image, len), to))
            })?;
            Ok(Self {
                child: Some(child),
                from: from.into(),
                end: Instant::now() + LIMIT,
            })
        };
        start().map_err(Error::step("make a process that reads an image"))
    }

    /// Fills `to` with what it says; `None` if it ended before, or its time has.
    ///
    /// # Errors
    /// What the host says, or that a signal asks us to end.
    pub fn fill(&mut self, to: &mut [u8], undo: &mut Undo) -> Result<Option<()>, Error> {
        let failed = || Error::step("hear the process that reads an image");
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

    /// Why it said no more.
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
                format!("its reader broke off ({signal}): {DAMAGED}")
            }
            Some(WaitStatus::Exited(_, CANNOT_CONFINE)) => {
                "this host cannot lock up the process that is to read it".into()
            }
            _ => "its reader broke off".into(),
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Some(child) = self.child {
            let _ = kill(child, Signal::SIGKILL);
            let _ = sandbox::ended(child);
        }
    }
}

/// Why a reader breaks off.
const DAMAGED: &str = "it is damaged, or made to do harm";
/// Status of a helper that read nothing, as it could not be locked up.
const CANNOT_CONFINE: i32 = 2;

/// Runs `work` in a copy of this process, which ends with it.
#[expect(unsafe_code, reason = "fork")]
fn duplicate(work: impl FnOnce() -> io::Result<()>) -> io::Result<Pid> {
    // SAFETY: this process has one thread, so no lock is held that the child could wait for; where tests run,
    // the C library takes care of its allocator's.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            let status = match done {
                Ok(Ok(())) => 0,
                Ok(Err(_)) => CANNOT_CONFINE,
                // Where a panic does not abort.
                Err(_) => std::process::abort(),
            };
            // SAFETY: ends the process at once, with nothing of the parent's undone.
            unsafe { libc::_exit(status) }
        }
    }
}

/// Takes everything away that reading `image` and writing to `to` does not need.
#[expect(unsafe_code, reason = "descriptors, of which all but two are closed")]
fn confine(
    image: &File,
    to: &File,
    nowhere: &crate::dir::Dir,
    parent: Pid,
    rules: &BpfProgram,
) -> io::Result<(File, File)> {
    fchdir(nowhere)?;
    chroot(".")?;
    nix::unistd::dup2_stdin(image)?;
    nix::unistd::dup2_stdout(to)?;
    // SAFETY: this process uses no other descriptor any more, and ends without dropping what owns them.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 2, libc::c_uint::MAX, 0) };
    if closed == -1 {
        return Err(io::Error::last_os_error());
    }
    forget_environment();
    sandbox::give_up(&[
        (Resource::RLIMIT_AS, MAX_MEMORY),
        (Resource::RLIMIT_DATA, MEMORY),
        (Resource::RLIMIT_CPU, PROCESSOR),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_NOFILE, 2),
        (Resource::RLIMIT_NPROC, 0),
    ])?;
    keep_what_is_allocated();
    // A change of the user would have undone this.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    if getppid() != parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    seccompiler::apply_filter(rules).map_err(io::Error::other)?;
    // SAFETY: the two that were just put there, which nobody else here owns.
    Ok(unsafe { (File::from_raw_fd(0), File::from_raw_fd(1)) })
}

/// Has the C library's allocator give no memory back: for a thread that is not a process's first, as tests are run by, it
/// opens a file before it does.
#[expect(
    unsafe_code,
    reason = "no safe function sets an option of the allocator"
)]
fn keep_what_is_allocated() {
    // SAFETY: the call sets a number that the allocator reads when memory is freed.
    unsafe { libc::mallopt(libc::M_TRIM_THRESHOLD, libc::c_int::MAX) };
}

/// Wipes out what the one who started us had in the environment: an image that takes this process over could
/// have its guest told.
#[expect(unsafe_code, reason = "the process's own strings")]
fn forget_environment() {
    unsafe extern "C" {
        static environ: *const *mut libc::c_char;
    }
    // SAFETY: the list ends with a null pointer, and so does each string with a zero; this process has one
    // thread, and reads none of them.
    unsafe {
        let mut at = environ;
        while !at.is_null() && !(*at).is_null() {
            libc::memset((*at).cast(), 0, libc::strlen(*at));
            at = at.add(1);
        }
    }
}

/// What the process may still ask the kernel for; anything else ends it.
fn rules() -> Result<BpfProgram, seccompiler::BackendError> {
    let any = Vec::new;
    let argument = |index, op, value| -> Result<Vec<SeccompRule>, seccompiler::BackendError> {
        let condition = SeccompCondition::new(index, Len::Dword, op, value)?;
        Ok(vec![SeccompRule::new(vec![condition])?])
    };
    let executable = u64::from(libc::PROT_EXEC.unsigned_abs());
    let not_executable = || argument(2, Op::MaskedEq(executable), 0);
    let rules = BTreeMap::from([
        (libc::SYS_pread64, argument(0, Op::Eq, 0)?),
        (libc::SYS_write, argument(0, Op::Eq, 1)?),
        (libc::SYS_mmap, not_executable()?),
        (libc::SYS_mprotect, not_executable()?),
        (libc::SYS_munmap, any()),
        (libc::SYS_mremap, any()),
        (libc::SYS_madvise, any()),
        (libc::SYS_brk, any()),
        (libc::SYS_futex, any()),
        // What the allocator and the clock ask where they cannot do without: they tell of nothing but us.
        (libc::SYS_sched_yield, any()),
        (libc::SYS_sched_getaffinity, any()),
        (libc::SYS_getrandom, any()),
        (libc::SYS_clock_gettime, any()),
        (libc::SYS_rt_sigprocmask, any()),
        (libc::SYS_exit, any()),
        (libc::SYS_exit_group, any()),
    ]);
    SeccompFilter::new(
        rules,
        SeccompAction::KillProcess,
        SeccompAction::Allow,
        seccompiler::TargetArch::x86_64,
    )?
    .try_into()
}

/// In the helper: reads the image and says what is in it.
fn work(image: Window, to: File) {
    // Descriptors are not closed, which would be one more thing to allow: they end with the process.
    let (image, to) = (ManuallyDrop::new(image), ManuallyDrop::new(to));
    std::panic::set_hook(Box::new(tell_of_panic));
    let mut says = Says { to: &to };
    let said = match finder::find(&image, &mut says) {
        Ok(()) => says.frame(Mark::End, &[]),
        Err(e) => says.frame(Mark::Error, e.as_bytes()),
    };
    // If nobody listens any more, there is nothing to say.
    drop(said);
}

/// In the helper: says where a reader of others', which cannot stand every image, broke off.
#[expect(
    unsafe_code,
    reason = "a descriptor that is open until the process ends"
)]
fn tell_of_panic(panic: &PanicHookInfo<'_>) {
    // SAFETY: it is where the process writes to, and is not closed here.
    let mut to = ManuallyDrop::new(unsafe { File::from_raw_fd(1) });
    let place = panic.location().map(|place| {
        let mut parts: Vec<&str> = place.file().rsplit('/').take(3).collect();
        parts.reverse();
        format!("{}:{}", parts.join("/"), place.line())
    });
    let place = place.unwrap_or_default();
    let text = format!("its reader broke off at {place}: {DAMAGED}");
    let _ = frames::write(&mut *to, Mark::Error, text.as_bytes());
}

struct Says<'a> {
    to: &'a File,
}

impl Says<'_> {
    fn frame(&mut self, mark: Mark, bytes: &[u8]) -> Result<(), String> {
        frames::write(&mut self.to, mark, bytes).map_err(|e| e.to_string())
    }
}

impl Taker for Says<'_> {
    fn command_line(&mut self, line: &str) -> Result<(), String> {
        self.frame(Mark::CommandLine, line.as_bytes())
    }

    fn kernel(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.frame(Mark::Kernel, bytes)
    }

    fn initrd(&mut self, bytes: &[u8]) -> Result<(), String> {
        self.frame(Mark::Initrd, bytes)
    }
}

#[cfg(test)]
#[path = "helper_test.rs"]
mod helper_test;
