//! Programs of the host that commands run: mount, lvm, sfdisk, nft, systemctl. They are looked up in the system's
//! directories only, and run with an empty environment and a time limit. They end with this process, by Ctrl-C, too.

use crate::error::Error;
use crate::sys::pidfd::Process;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;
use resources::Problem;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Directories in which programs are looked up.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Most bytes of a program's output that are read; the report of a volume group with thousands of volumes is smaller.
const MAX_OUTPUT: u64 = 8 << 20;
/// Default time limit of a program.
const LIMIT: Duration = Duration::from_secs(120);
/// Interval of checks for a signal while a program runs.
const TICK: Duration = Duration::from_millis(50);
/// Time limit for a program to end after SIGTERM, and after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(3);

/// A check between the steps of long work: the work continues, or a signal stops it.
pub trait Checkpoint {
    /// Returns an error if a signal asks this process to stop.
    fn checkpoint(&mut self) -> Result<(), Error>;
}

/// A check that ignores pending signals.
struct Uninterrupted;

impl Checkpoint for Uninterrupted {
    fn checkpoint(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A program to run.
pub struct Tool {
    command: Command,
    name: &'static str,
    limit: Duration,
    input: String,
    before: Option<Before>,
    meanwhile: Box<dyn FnMut()>,
}

/// Held while a program is started: until exec its process has all descriptors of this one.
#[cfg(test)]
pub static STARTING: std::sync::RwLock<()> = std::sync::RwLock::new(());

type Before = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// Returns the path of the program `name`, if it is installed.
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    let mut paths = DIRECTORIES.iter().map(|dir| Path::new(dir).join(name));
    paths.find(|path| path.is_file())
}

/// Returns the path of the program `name`, which is in Debian's `package`.
///
/// # Errors
/// [`Error::Problems`], if it is not installed.
pub fn need(name: &str, package: &str) -> Result<std::path::PathBuf, Error> {
    find(name).ok_or_else(|| {
        let message = format!("is not installed: `apt install {package}`");
        Error::Problems(vec![Problem::new(name, message)])
    })
}

impl Tool {
    /// Prepares the program `name`, which is in Debian's `package`.
    ///
    /// # Errors
    /// [`Error::Problems`], if it is not installed.
    pub fn new(name: &'static str, package: &str) -> Result<Self, Error> {
        let mut command = Command::new(need(name, package)?);
        command.env_clear().env("LC_ALL", "C").current_dir("/");
        command.env("PATH", DIRECTORIES.join(":"));
        Ok(Self {
            command,
            name,
            limit: LIMIT,
            input: String::new(),
            before: None,
            meanwhile: Box::new(|| ()),
        })
    }

    /// Adds arguments.
    pub fn args<S: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Sets its standard input.
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = text.into();
        self
    }

    /// Sets its time limit.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Makes the program's process run `action` between fork and exec.
    pub fn before(
        mut self,
        action: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.before = Some(Box::new(action));
        self
    }

    /// Makes this process call `action` regularly while the program runs.
    pub fn meanwhile(mut self, action: impl FnMut() + 'static) -> Self {
        self.meanwhile = Box::new(action);
        self
    }

    /// Runs it; returns its standard output.
    ///
    /// # Errors
    /// [`Error`] with its standard error, or that it exceeded its time, or that a signal stopped this process.
    pub fn run(mut self, stop: &mut impl Checkpoint) -> Result<String, Error> {
        let name = self.name;
        let (limit, started) = (self.limit, Instant::now());
        let spawned = self.spawn().map_err(Error::step(format!("run {name}")));
        let (mut child, mut output, mut messages) = spawned?;
        let status = wait(&mut child, started + limit, stop, &mut self.meanwhile)?;
        let step = || format!("run {name}");
        let Some(status) = status else {
            let message = format!("it did not end within {} s", limit.as_secs());
            return Err(Error::step(step())(io::Error::other(message)));
        };
        let said = |file: &mut File| -> io::Result<String> {
            let mut bytes = Vec::new();
            file.rewind()?;
            file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        if status.success() {
            return said(&mut output).map_err(Error::step(step()));
        }
        let mut text = printable(&said(&mut messages).unwrap_or_default());
        if text.is_empty() {
            text = status.to_string();
        }
        Err(Error::step(step())(io::Error::other(text)))
    }

    /// Runs the program even if a signal is pending, for example to undo a step.
    pub fn run_to_end(self) -> Result<String, Error> {
        self.run(&mut Uninterrupted)
    }

    fn spawn(&mut self) -> io::Result<(Child, File, File)> {
        #[cfg(test)]
        let _others = STARTING.read();
        let file =
            || -> io::Result<File> { Ok(memfd_create(c"output", MFdFlags::MFD_CLOEXEC)?.into()) };
        let (mut input, output, messages) = (file()?, file()?, file()?);
        input.write_all(self.input.as_bytes())?;
        input.rewind()?;
        self.command.stdin(input);
        self.command.stdout(Stdio::from(output.try_clone()?));
        self.command.stderr(Stdio::from(messages.try_clone()?));
        prepare(&mut self.command, self.before.take());
        Ok((self.command.spawn()?, output, messages))
    }
}

/// Gives the program a process group of its own, so that a terminal's Ctrl-C reaches this process alone, which then
/// ends it; unblocks the signals that are blocked here; and has it end with this process.
#[expect(unsafe_code, reason = "code between fork and exec")]
fn prepare(command: &mut Command, before: Option<Before>) {
    command.process_group(0);
    let mut before = before.unwrap_or_else(|| Box::new(|| Ok(())));
    // SAFETY: a command runs programs from its only thread, so the child finds no lock held. It changes nothing that it
    // shares with its parent.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            before()
        });
    }
}

/// Waits until the program has ended; returns `None` if it had not by `end`, and was ended.
fn wait(
    child: &mut Child,
    end: Instant,
    stop: &mut impl Checkpoint,
    meanwhile: &mut dyn FnMut(),
) -> Result<Option<ExitStatus>, Error> {
    let failed = || Error::step("wait for a program");
    let process = Process::open(child.id()).map_err(|e| {
        let _ = child.kill();
        let _ = child.wait();
        failed()(e)
    })?;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if process.wait(left.min(TICK)).map_err(failed())? {
            return child.wait().map(Some).map_err(failed());
        }
        meanwhile();
        if let Err(stopped) = stop.checkpoint() {
            end_it(child, &process);
            return Err(stopped);
        }
        if Instant::now() >= end {
            end_it(child, &process);
            return Ok(None);
        }
    }
}

/// Asks the program to end, then kills it. One that hangs in the kernel all the same is left behind.
fn end_it(child: &mut Child, process: &Process) {
    let Ok(group) = i32::try_from(child.id()) else {
        return;
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let _ = killpg(Pid::from_raw(group), signal);
        if process.wait(PATIENCE).unwrap_or(false) {
            let _ = child.wait();
            return;
        }
    }
}

/// Returns a program's output in one line, without control characters, which could move a terminal's cursor.
pub fn printable(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Vec<String> = lines
        .take(6)
        .map(|line| {
            let line = line.chars().take(300);
            line.map(|c| if c.is_control() { '?' } else { c }).collect()
        })
        .collect();
    lines.join("; ")
}

#[cfg(test)]
#[path = "tool_test.rs"]
mod tool_test;
