//! `jailer stop` and `jailer destroy`: a guest's end, its own or ours.

use crate::clean;
use crate::error::Error;
use crate::guests::{Guest, channel, options, service};
use argh::FromArgs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::time::{Duration, Instant};

/// How long a killed process may take to end.
const KILLED: Duration = Duration::from_secs(10);
/// Between two looks whether it has ended.
const INTERVAL: Duration = Duration::from_millis(20);

/// Press a guest's power button, wait until it has shut down, and remove what it leaves on the host.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "stop",
    example = "jailer stop web1\njailer stop web1 --timeout 20 --force",
    note = "A guest that does not heed the button runs on, and the status is 1: see `jailer console NAME`, or use\n`jailer destroy NAME`."
)]
pub struct Stop {
    /// name of the guest
    #[argh(positional)]
    name: String,
    /// seconds that the guest may take (120)
    #[argh(option, default = "120")]
    timeout: u64,
    /// kill the guest when they are over
    #[argh(switch)]
    force: bool,
    /// for the guest's unit, which removes what it leaves by itself
    #[argh(switch, hidden_help)]
    unit: bool,
}

impl Stop {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`]: the guest runs on.
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        let guest = Guest::load(&self.name)?;
        let name = &guest.name;
        if !guest.is_running() {
            println!("{name} does not run");
            return self.tidy(&guest);
        }
        let pressed = channel::act(&guest, "PowerButton");
        if let Err(e) = pressed
            && !self.force
        {
            let step = format!("press the power button of {name}; `jailer destroy {name}` ends it");
            return Err(Error::step(step)(e));
        }
        if !ended(&guest, Duration::from_secs(self.timeout)) {
            if !self.force {
                let message = format!(
                    "it did not shut down within {} s: see `jailer console {name}`, or `jailer destroy {name}`",
                    self.timeout
                );
                return Err(Error::step(format!("stop {name}"))(io::Error::other(
                    message,
                )));
            }
            destroy(&guest)?;
        }
        println!("{name} is stopped");
        self.tidy(&guest)
    }

    fn tidy(&self, guest: &Guest) -> Result<(), Error> {
        match self.unit {
            true => Ok(()),
            false => tidy(guest),
        }
    }
}

/// End a guest at once, as a power cut would, and remove what it leaves on the host. Its disks stay,
/// those of a copy excepted.
#[derive(Debug, FromArgs)]
#[argh(subcommand, name = "destroy", example = "jailer destroy web1")]
pub struct Destroy {
    /// name of the guest
    #[argh(positional)]
    name: String,
}

impl Destroy {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`].
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        let guest = Guest::load(&self.name)?;
        if !guest.is_running() && !service::has(&guest.name) {
            tidy(&guest)?;
            return Err(guest.not_running());
        }
        destroy(&guest)?;
        match guest.copy_of() {
            Some(of) => println!(
                "{}, a copy of {of}, is destroyed with its disks",
                guest.name
            ),
            None => println!("{} is destroyed; its disks are as it left them", guest.name),
        }
        tidy(&guest)
    }
}

/// Ends `guest` at once.
///
/// # Errors
/// What the host says.
pub fn destroy(guest: &Guest) -> Result<(), Error> {
    let name = &guest.name;
    if service::has(name) {
        // Else it would start it again.
        service::ask(name, &["stop", "--no-block"])?;
    }
    let started = Instant::now();
    while guest.is_running() {
        if let Some(process) = guest.process()? {
            // Its lock is held, so the number is its own still, or it is gone and nobody's yet.
            match kill(Pid::from_raw(process), Signal::SIGKILL) {
                Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
                Err(e) => return Err(Error::step(format!("kill {name}, process {process}"))(e)),
            }
        }
        if started.elapsed() > KILLED {
            let message = "it does not end";
            return Err(Error::step(format!("kill {name}"))(io::Error::other(
                message,
            )));
        }
        std::thread::sleep(INTERVAL);
    }
    Ok(())
}

/// Whether the guest ends within `limit`.
fn ended(guest: &Guest, limit: Duration) -> bool {
    let started = Instant::now();
    while guest.is_running() {
        if started.elapsed() > limit {
            return false;
        }
        std::thread::sleep(INTERVAL);
    }
    true
}

/// Removes what it left; under systemd, ExecStopPost does, and is waited for: of two that remove, one would fail.
fn tidy(guest: &Guest) -> Result<(), Error> {
    if service::settle(&guest.name)? {
        return Ok(());
    }
    let (base, exec_name) = options::place(&guest.config);
    clean::clean(base, &exec_name, &guest.name)
}
