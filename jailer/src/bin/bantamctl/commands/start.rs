//! `bantamctl start`.

use crate::commands::common::need_root;
use crate::guests::guest::Guest;
use crate::guests::{channel, options};
use crate::units;
use clap::Args;
use jailer::error::Error;
use std::io;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit for a guest to run, long enough for an emulated host and an image to copy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two requests for the guest's state.
const INTERVAL: Duration = Duration::from_millis(5);

/// Start a guest
#[derive(Debug, Args)]
#[command(
    after_help = "Starts the guest through systemd (bantam@NAME) where it runs the host, else as a process of its\n\
                  own. Returns when the guest runs.\n\n\
                  Example:\n  bantamctl start web1"
)]
pub struct Start {
    /// Name of the guest
    name: String,
}

impl Start {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        start(&Guest::load(&self.name)?)
    }
}

/// Starts `guest`.
pub fn start(guest: &Guest) -> Result<(), Error> {
    let name = &guest.name;
    if guest.copy_of().is_some() && !guest.is_running() {
        return Err(guest.not_running());
    }
    if guest.is_running() {
        return Err(Error::Refused(format!(
            "guest {name} runs already: `bantamctl console {name}` shows it"
        )));
    }
    let systemd = units::systemctl::is_running();
    if systemd {
        units::guest::start(name)?;
    } else {
        detach(name)?;
    }
    let messages = match systemd {
        true => units::guest::journal(name),
        false => format!("see {}", options::messages(name).display()),
    };
    if !is_up(guest) {
        let message = format!("its monitor ended, or does not answer: {messages}");
        return Err(Error::step(format!("start {name}"))(io::Error::other(
            message,
        )));
    }
    println!("{name} is started; for its messages {messages}");
    Ok(())
}

/// Starts the guest in another process, because a start ends in becoming the monitor.
fn detach(name: &str) -> Result<(), Error> {
    let own = std::env::current_exe().map_err(Error::step("find this program's file"))?;
    let mut command = Command::new(own);
    command.args(["run", "--detach", name]).stdin(Stdio::null());
    let status = command.status().map_err(Error::step("run this program"))?;
    match status.code() {
        Some(0) => Ok(()),
        code => {
            let status = code.and_then(|code| u8::try_from(code).ok());
            Err(Error::Reported(status.unwrap_or(1)))
        }
    }
}

/// Waits until the guest runs; returns `false` if its monitor has ended or does not get that far.
fn is_up(guest: &Guest) -> bool {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if channel::is_up(guest).is_ok_and(|up| up) {
            return true;
        }
        // Under systemd the monitor may not have taken its lock yet.
        if !guest.is_running() && !units::guest::is_active(&guest.name) {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
    false
}
