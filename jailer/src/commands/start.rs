//! `jailer start` and `jailer run`: a guest that is defined.

use crate::error::Error;
use crate::guests::{Guest, options, service};
use argh::FromArgs;
use resources::Problem;
use std::process::{Command, Stdio};

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
    if guest.is_running() {
        let message = format!("runs already: `jailer console {name}` shows it");
        return Err(Error::Problems(vec![Problem::new(name, message)]));
    }
    if service::is_here() {
        super::change(service::install)?;
        service::ask(name, &["start"])
            .map_err(|e| Error::step(service::journal(name))(std::io::Error::other(e)))?;
        println!("{name} is started, by systemd as bantam@{name}");
        return Ok(());
    }
    // A process of its own: a start ends in becoming the VMM.
    let own = std::env::current_exe().map_err(Error::step("find this program's file"))?;
    let mut command = Command::new(own);
    command.args(["run", "--detach", name]).stdin(Stdio::null());
    let status = command.status().map_err(Error::step("run this program"))?;
    match status.code() {
        Some(0) => println!(
            "{name} is started; its messages go to {}",
            options::messages(name).display()
        ),
        // It has told why.
        code => {
            return Err(Error::Told(
                code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1),
            ));
        }
    }
    Ok(())
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
}

impl Run {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`], which is why it did not start.
    pub fn run(self) -> Result<(), Error> {
        super::need_root()?;
        let Err(error) = Guest::load(&self.name)?.start(self.detach);
        Err(error)
    }
}
