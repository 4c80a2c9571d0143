//! `bantamctl destroy`.

use crate::commands::common::need_root;
use crate::guests::guest::Guest;
use crate::units;
use clap::Args;
use jailer::error::Error;
use jailer::jail;
use jailer::jail::options::place;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::time::{Duration, Instant};

/// Time limit for a killed process to end.
const KILLED: Duration = Duration::from_secs(10);
/// Time between two signals.
const INTERVAL: Duration = Duration::from_millis(20);

/// Force a guest off at once
#[derive(Debug, Args)]
#[command(
    after_help = "Works like a power cut. Also removes what the guest leaves on the host. Its disks stay; a\n\
                  copy's disks are deleted.\n\n\
                  Example:\n  bantamctl destroy web1"
)]
pub struct Destroy {
    /// Name of the guest
    name: String,
}

impl Destroy {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        let guest = Guest::load(&self.name)?;
        let name = &guest.name;
        if !guest.is_running() && !units::guest::is_active(name) {
            tidy(&guest)?;
            return Err(guest.not_running());
        }
        destroy(&guest)?;
        match guest.copy_of() {
            Some(of) => println!("{name}, a copy of {of}, is destroyed with its disks"),
            None => println!("{name} is destroyed; its disks stay"),
        }
        tidy(&guest)
    }
}

/// Kills the monitor of `guest`, and waits for its end.
pub fn destroy(guest: &Guest) -> Result<(), Error> {
    let name = &guest.name;
    if units::guest::is_active(name) {
        // Else systemd would restart the guest.
        units::guest::stop_without_waiting(name)?;
    }
    let started = Instant::now();
    while guest.is_running() {
        if let Some(process) = guest.process()? {
            match kill(Pid::from_raw(process.cast_signed()), Signal::SIGKILL) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => return Err(Error::step(format!("kill {name}, process {process}"))(e)),
            }
        }
        if started.elapsed() > KILLED {
            let error = io::Error::from(io::ErrorKind::TimedOut);
            return Err(Error::step(format!("kill {name}"))(error));
        }
        guest.wait_for_end(INTERVAL)?;
    }
    Ok(())
}

/// Cleans up after the guest. Under systemd its unit does that and this waits, because of two clean-ups one would
/// fail.
pub fn tidy(guest: &Guest) -> Result<(), Error> {
    if units::guest::settle(&guest.name)? {
        return Ok(());
    }
    let (base, exec_name) = place(&guest.config);
    jail::clean::clean(base, &exec_name, &guest.name)
}
