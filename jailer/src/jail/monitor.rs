//! The monitor that this process becomes: its arguments, and the descriptors it inherits.

use crate::error::Error;
use crate::jail::layout::{CONFIG, DRIVES, FORK, RUN};
use crate::jail::lock::Lock;
use crate::jail::options::Options;
use crate::jail::uids::Claim;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::stat::{Mode, umask};
use nix::time::{ClockId, clock_gettime};
use resources::VmConfig;
use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt as _;
use std::time::Duration;

/// Start time of the jailer on two clocks, in microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Started {
    monotonic: u128,
    cpu: u128,
}

impl Started {
    /// Returns the time now.
    pub fn now() -> Self {
        Self {
            monotonic: micros(ClockId::CLOCK_MONOTONIC),
            cpu: micros(ClockId::CLOCK_PROCESS_CPUTIME_ID),
        }
    }
}

fn micros(clock: ClockId) -> u128 {
    clock_gettime(clock).map_or(0, |time| Duration::from(time).as_micros())
}

/// A monitor that is ready to be executed.
#[derive(Debug)]
pub struct Monitor {
    name: String,
    id: String,
    started: Started,
    arguments: Vec<OsString>,
    lock: Lock,
    user: Option<Claim>,
    handover: Option<File>,
    inherited: Vec<OwnedFd>,
}

impl Monitor {
    /// Returns the monitor of `options`, which inherits `lock` and `inherited`. `arguments` name its guest.
    pub fn new(
        options: &Options,
        started: Started,
        lock: Lock,
        inherited: Vec<OwnedFd>,
        mut arguments: Vec<OsString>,
    ) -> Self {
        arguments.extend(options.pass_through.iter().cloned());
        Self {
            name: options.exec_name.clone(),
            id: options.id.clone(),
            started,
            arguments,
            lock,
            user: None,
            handover: None,
            inherited,
        }
    }

    /// Makes the monitor hold the claim `user` until it ends.
    pub fn with_user(self, user: Option<Claim>) -> Self {
        Self { user, ..self }
    }

    /// Makes this process write a byte to `handover` just before exec.
    pub fn with_handover(self, handover: Option<File>) -> Self {
        Self { handover, ..self }
    }

    /// Returns its path in the jail.
    pub fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Executes it, with an empty environment.
    pub fn execute(&self) -> Result<Infallible, Error> {
        let path = self.path();
        let failed = Error::step::<io::Error>(format!("execute {path} in the jail"));
        let execute = || {
            let words: io::Result<Vec<CString>> = self.words().into_iter().map(c_string).collect();
            inherit(&**self.lock)?;
            self.user.iter().try_for_each(|user| inherit(&**user))?;
            self.inherited.iter().try_for_each(inherit)?;
            let path = c_string(path.into())?;
            if let Some(mut handover) = self.handover.as_ref() {
                handover.write_all(b"s")?;
            }
            Ok(nix::unistd::execve::<_, CString>(&path, &words?, &[])?)
        };
        execute().map_err(failed)
    }

    /// Returns the command line, of which the first word is the monitor itself. Firecracker's jailer passes the same
    /// times.
    fn words(&self) -> Vec<OsString> {
        let used = Started::now().cpu.saturating_sub(self.started.cpu);
        let mut words: Vec<OsString> = vec![self.path().into()];
        for (flag, value) in [
            ("--id", self.id.clone()),
            ("--start-time-us", self.started.monotonic.to_string()),
            ("--start-time-cpu-us", self.started.cpu.to_string()),
            ("--parent-cpu-time-us", used.to_string()),
        ] {
            words.extend([flag.into(), value.into()]);
        }
        words.extend(self.arguments.iter().cloned());
        words
    }
}

/// Returns the arguments of a monitor whose configuration is in the jail.
pub fn configured() -> Vec<OsString> {
    let path = format!("/{}", CONFIG);
    vec!["--config-file".into(), path.into()]
}

/// Returns the arguments of a monitor that waits for a copy of the guest that `config` describes. `taps` are the
/// descriptors of its interfaces, in order. The monitor exits if the other end of `lifeline` closes before the guest
/// arrives.
pub fn waiting(config: &VmConfig, taps: &[RawFd], lifeline: Option<&OwnedFd>) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec!["--fork-socket".into()];
    words.push(format!("/{}/{}", RUN, FORK).into());
    for drive in config.drives.iter().filter(|drive| !drive.is_read_only) {
        let id = &drive.drive_id;
        let image = format!("{id}=/{}/{id}", DRIVES);
        words.extend(["--fork-drive".into(), image.into()]);
    }
    for (interface, tap) in config.network_interfaces.iter().zip(taps) {
        let tap = format!("{}={tap}", interface.iface_id);
        words.extend(["--fork-tap".into(), tap.into()]);
    }
    if let Some(lifeline) = lifeline {
        let number = lifeline.as_raw_fd().to_string();
        words.extend(["--fork-lifeline".into(), number.into()]);
    }
    words
}

fn c_string(word: OsString) -> io::Result<CString> {
    Ok(CString::new(word.into_vec())?)
}

fn inherit(fd: impl std::os::fd::AsFd) -> io::Result<()> {
    fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
    Ok(())
}

/// Returns the descriptor numbers of `taps`, which the monitor inherits.
pub fn numbers(taps: &[OwnedFd]) -> Vec<RawFd> {
    taps.iter().map(|tap| tap.as_fd().as_raw_fd()).collect()
}

/// Returns a duplicate of standard input, the lifeline, whose number does not change.
pub fn lifeline() -> Result<OwnedFd, Error> {
    let kept = io::stdin().as_fd().try_clone_to_owned();
    kept.map_err(Error::step("duplicate standard input"))
}

/// Closes all inherited descriptors except the standard streams, so that none enters the jail by accident, and makes
/// new files private by the umask.
#[expect(unsafe_code, reason = "descriptors that no value here owns")]
pub fn close_inherited() -> Result<(), Error> {
    umask(Mode::from_bits_truncate(0o077));
    // SAFETY: called before this process opens any, so none of these belongs to a value here.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
    match closed {
        -1 => Err(Error::step("close inherited descriptors")(
            io::Error::last_os_error(),
        )),
        _ => Ok(()),
    }
}
