//! Programs of the host that the commands run: mount, lvm, sfdisk. Found in the system's directories only, run
//! with an empty environment, bounded in time, and ended with us, by Ctrl-C too.

use crate::error::Error;
use crate::undo::Undo;
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

/// Where programs are looked for.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Most of what a program says that is read, in bytes: the report of a volume group with thousands of
/// volumes is smaller.
const MAX_OUTPUT: u64 = 8 << 20;
/// How long a program may take unless it is given another limit.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a program that is asked to end may take before it is killed, and after.
const PATIENCE: Duration = Duration::from_secs(3);

/// A program to run.
pub struct Tool {
    command: Command,
    name: &'static str,
    limit: Duration,
    input: String,
    before: Option<Before>,
    meanwhile: Box<dyn FnMut()>,
}

/// Held while a program is started: its process has all descriptors of ours until it is the program.
#[cfg(test)]
pub static STARTING: std::sync::RwLock<()> = std::sync::RwLock::new(());

type Before = Box<dyn FnMut() -> io::Result<()> + Send + Sync>;

/// Whether `name` is there.
pub fn find(name: &str) -> Option<std::path::PathBuf> {
    let mut paths = DIRECTORIES.iter().map(|dir| Path::new(dir).join(name));
    paths.find(|path| path.is_file())
}

/// What to tell if `name`, which is in Debian's `package`, is not there.
///
/// # Errors
/// [`Error::Problems`].
pub fn need(name: &str, package: &str) -> Result<std::path::PathBuf, Error> {
    find(name).ok_or_else(|| {
        let message = format!("is not on this host: `apt install {package}`");
        Error::Problems(vec![Problem::new(name, message)])
    })
}

impl Tool {
    /// The program `name`, which is in Debian's `package`.
    ///
    /// # Errors
    /// [`Error::Problems`]: it is not there.
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

    /// What it reads.
    pub fn input(mut self, text: impl Into<String>) -> Self {
        self.input = text.into();
        self
    }

    /// How long it may take.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// What its process does before it becomes the program.
    pub fn before(
        mut self,
        action: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        self.before = Some(Box::new(action));
        self
    }

    /// What is done again and again while it runs.
    pub fn meanwhile(mut self, action: impl FnMut() + 'static) -> Self {
        self.meanwhile = Box::new(action);
        self
    }

    /// Runs it; returns what it wrote.
    ///
    /// # Errors
    /// What it said, that its time is over, or that a signal asks us to end.
    pub fn run(mut self, undo: &mut Undo) -> Result<String, Error> {
        let name = self.name;
        let (limit, started) = (self.limit, Instant::now());
        let spawned = self.spawn().map_err(Error::step(format!("run {name}")));
        let (mut child, mut output, mut messages) = spawned?;
        let status = wait(&mut child, started + limit, undo, &mut self.meanwhile)?;
        let step = || format!("have {name} do it");
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

    /// Runs it whatever signal has come: to take something back.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_to_end(self) -> Result<String, Error> {
        self.run(&mut Undo::new(|| Ok(())))
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

/// A group of its own, so that a terminal's Ctrl-C reaches us alone and we end it; the signals that we hold
/// back are not held back there; and it does not outlive us.
#[expect(unsafe_code, reason = "what is done between fork and exec")]
fn prepare(command: &mut Command, before: Option<Before>) {
    command.process_group(0);
    let mut before = before.unwrap_or_else(|| Box::new(|| Ok(())));
    // SAFETY: a command runs programs from its only thread, so the child finds no lock held; it changes
    // nothing that it shares with its parent.
    unsafe {
        command.pre_exec(move || {
            SigSet::empty().thread_set_mask()?;
            nix::sys::prctl::set_pdeathsig(Signal::SIGTERM)?;
            before()
        });
    }
}

/// Waits for its end; `None` if that did not come before `end`.
fn wait(
    child: &mut Child,
    end: Instant,
    undo: &mut Undo,
    meanwhile: &mut dyn FnMut(),
) -> Result<Option<ExitStatus>, Error> {
    let mut pause = Duration::from_millis(1);
    loop {
        let status = child.try_wait().map_err(Error::step("wait for a program"));
        if let Some(status) = status? {
            return Ok(Some(status));
        }
        meanwhile();
        if let Err(stopped) = undo.checkpoint() {
            end_it(child);
            return Err(stopped);
        }
        if Instant::now() >= end {
            end_it(child);
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Asks it to end, then makes it. One that hangs in the kernel all the same is left.
fn end_it(child: &mut Child) {
    let Ok(group) = i32::try_from(child.id()) else {
        return;
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let _ = killpg(Pid::from_raw(group), signal);
        let asked = Instant::now();
        while asked.elapsed() < PATIENCE {
            if matches!(child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// What a program said, in one line without anything that moves a terminal's cursor.
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
