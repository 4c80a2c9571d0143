//! `bantamctl stop`.

use crate::commands::common::need_root;
use crate::commands::destroy;
use crate::guests::channel;
use crate::guests::guest::Guest;
use clap::Args;
use jailer::error::Error;
use std::io;
use std::time::Duration;

/// Shut a guest down by its power button (ACPI)
#[derive(Debug, Args)]
#[command(
    after_help = "Presses the guest's power button, waits until it has powered off, and removes what it leaves on\n\
                  the host.\n\n\
                  Examples:\n  bantamctl stop web1\n  bantamctl stop web1 --timeout 20 --force\n\n\
                  A guest that ignores the button runs on, and the exit status is 1: look at its\n\
                  console, or use `bantamctl destroy`."
)]
pub struct Stop {
    /// Name of the guest
    name: String,
    /// Seconds that the guest may take
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    timeout: u64,
    /// Force the guest off after that time
    #[arg(long)]
    force: bool,
    /// Leave the clean-up to the guest's unit, which runs this
    #[arg(long, hide = true)]
    unit: bool,
}

impl Stop {
    pub fn run(self) -> Result<(), Error> {
        need_root()?;
        let guest = Guest::load(&self.name)?;
        let name = &guest.name;
        if !guest.is_running() {
            println!("{name} is not running");
            return self.tidy(&guest);
        }
        let pressed = channel::act(&guest, "PowerButton");
        if let Err(e) = pressed
            && !self.force
        {
            let step = format!(
                "press the power button of {name} (`bantamctl destroy {name}` forces it off)"
            );
            return Err(Error::step(step)(e));
        }
        if !guest.wait_for_end(Duration::from_secs(self.timeout))? {
            if !self.force {
                let message = format!(
                    "it did not power off within {} s: see `bantamctl console {name}`, or force it off with \
                     `bantamctl destroy {name}`",
                    self.timeout
                );
                return Err(Error::step(format!("stop {name}"))(io::Error::other(
                    message,
                )));
            }
            destroy::destroy(&guest)?;
        }
        println!("{name} is stopped");
        self.tidy(&guest)
    }

    fn tidy(&self, guest: &Guest) -> Result<(), Error> {
        match self.unit {
            true => Ok(()),
            false => destroy::tidy(guest),
        }
    }
}
