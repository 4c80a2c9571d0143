//! Runs a monitor with a time limit, and ends it.

use crate::Failure;
use crate::payload::MARK;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// A monitor and its children, in a process group that ends with this program.
pub struct Running {
    child: Child,
    messages: PathBuf,
    /// Dropping it stops the watchdog.
    _watched: mpsc::Sender<()>,
}

impl Running {
    /// Starts `command` with its standard output to `output` and its messages to a file in `dir`. It is killed after `patience`.
    /// Also returns the time before the start.
    pub fn start(
        command: &mut Command,
        output: Stdio,
        dir: &Path,
        patience: Duration,
    ) -> Result<(Self, Instant), Failure> {
        let messages = dir.join("messages");
        command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(File::create(&messages)?)
            .process_group(0);
        let group = Arc::new(AtomicI32::new(0));
        let watched = watchdog(group.clone(), patience);
        let started = Instant::now();
        let child = command.spawn()?;
        group.store(i32::try_from(child.id())?, Ordering::Release);
        let running = Self {
            child,
            messages,
            _watched: watched,
        };
        Ok((running, started))
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the guest's mark in the monitor's output.
    pub fn wait_for_mark(&mut self) -> Result<Instant, Failure> {
        let output = self.child.stdout.as_mut().ok_or("no pipe")?;
        let mut bytes = [0; 4096];
        loop {
            let len = output.read(&mut bytes)?;
            let now = Instant::now();
            let read = bytes.get(..len).unwrap_or_default();
            if read.contains(&MARK) {
                return Ok(now);
            }
            if len == 0 {
                return Err(self.explain("it ended, or took too long, before the guest ran"));
            }
        }
    }

    /// Waits for any output of the monitor.
    pub fn wait_for_word(&mut self) -> Result<Instant, Failure> {
        let output = self.child.stdout.as_mut().ok_or("no pipe")?;
        match output.read(&mut [0])? {
            0 => Err(self.explain("it ended, or took too long, and said nothing")),
            _ => Ok(Instant::now()),
        }
    }

    /// Discards the monitor's further output.
    pub fn read_on(&mut self) {
        if let Some(mut output) = self.child.stdout.take() {
            std::thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
        }
    }

    pub fn wait(&mut self) -> Result<ExitStatus, Failure> {
        Ok(self.child.wait()?)
    }

    /// Returns `what` with the end of the monitor's messages.
    pub fn explain(&self, what: &str) -> Failure {
        let said = fs::read(&self.messages).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines
            .get(lines.len().saturating_sub(5)..)
            .unwrap_or_default();
        format!("{what}: {}", last.join(" / ")).into()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(id) = i32::try_from(self.child.id()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// Kills the process group after `patience`, unless the returned sender is dropped before. The thread sleeps, so that it does
/// not disturb the measurement.
fn watchdog(group: Arc<AtomicI32>, patience: Duration) -> mpsc::Sender<()> {
    let (watched, called_off) = mpsc::channel();
    std::thread::spawn(move || {
        let group = match called_off.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => group.load(Ordering::Acquire),
            _ => return,
        };
        if group > 0 {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    });
    watched
}
