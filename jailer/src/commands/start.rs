//! `jailer start` and `jailer run`: a guest that is defined.

use crate::cli;
use crate::error::Error;
use crate::guests::{Guest, channel, options, service};
use argh::FromArgs;
use resources::Problem;
use std::fs::File;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// How long a VMM may take until its guest runs: one on an emulated host, with an image that is copied.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks whether it does.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long the modules of a host that comes up may take: most of a start's patience is left.
const MODULES: Duration = Duration::from_secs(20);
/// The device that they make.
const KVM: &str = "/dev/kvm";

/// Start a guest: by systemd (bantam@NAME) where that runs the host, else as a process that stays when this
/// one has ended. Ends when the guest's VMM runs.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "start", example = "jailer start web1")]
pub struct Start {
    /// name of the guest
    #[argh(positional)]
    name: String,
}

impl Start {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`], which is why it did not start.
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        start(&Guest::load(&self.name)?)
    }
}

/// Starts `guest`.
///
/// # Errors
/// [`Error`], which is why it did not start.
pub fn start(guest: &Guest) -> Result<(), Error> {
    let name = &guest.name;
    if guest.copy_of().is_some() && !guest.is_running() {
        return Err(guest.not_running());
    }
    if guest.is_running() {
        let message = format!("runs already: `jailer console {name}` shows it");
        return Err(Error::Problems(vec![Problem::new(name, message)]));
    }
    let systemd = service::is_here();
    if systemd {
        super::change(service::install)?;
        service::ask(name, &["start"])
            .map_err(|e| Error::step(service::journal(name))(io::Error::other(e)))?;
    } else {
        detach(name)?;
    }
    let messages = match systemd {
        true => service::journal(name),
        false => format!("{} tells more", options::messages(name).display()),
    };
    if !is_up(guest) {
        let message = format!("its VMM ended, or does not answer: {messages}");
        return Err(Error::step(format!("start {name}"))(io::Error::other(
            message,
        )));
    }
    println!("{name} is started; {messages}");
    Ok(())
}

/// Starts the guest in a process of its own: a start ends in becoming the VMM.
fn detach(name: &str) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(Error::step("find this program's file"))?;
    let mut command = Command::new(own);
    command.args(["run", "--detach", name]).stdin(Stdio::null());
    let status = command.status().map_err(Error::step("run this program"))?;
    match status.code() {
        Some(0) => Ok(()),
        // It has told why.
        code => {
            let status = code.and_then(|code| u8::try_from(code).ok());
            Err(Error::Told(status.unwrap_or(1)))
        }
    }
}

/// Waits until the guest's VMM lets it run; `false` if it has ended, or does not come to that.
fn is_up(guest: &Guest) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if channel::is_up(guest).is_ok_and(|up| up) {
            return true;
        }
        // Under systemd it may not have come to its lock yet.
        if !guest.is_running() && !service::has(&guest.name) {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
    false
}

/// Become the VMM of a guest that is defined: what bantam@NAME executes. Ends with the guest.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "run", example = "jailer run web1")]
pub struct Run {
    /// name of the guest
    #[argh(positional)]
    name: String,
    /// leave the terminal, and end when the VMM runs
    #[argh(switch)]
    detach: bool,
    /// for `jailer fork`, whose end of a pipe standard input has the other of
    #[argh(switch, hidden_help)]
    lifeline: bool,
}

impl Run {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`], which is why it did not start.
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        let guest = Guest::load(&self.name)?;
        if !self.detach {
            wait_for_kvm();
        }
        let Err(error) = guest.start(cli::Process {
            daemonize: self.detach,
            lifeline: self.lifeline,
            ..cli::Process::default()
        });
        Err(error)
    }
}

/// When a host comes up, its guests may be quicker than udev, which loads the modules. What is missing after all, the
/// start tells.
fn wait_for_kvm() {
    let started = Instant::now();
    let opened = || File::options().read(true).write(true).open(KVM).is_ok();
    while !opened() && started.elapsed() < MODULES {
        std::thread::sleep(INTERVAL);
    }
}
