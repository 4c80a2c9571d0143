//! The commands of `jailer`: what is said by words, `jailer pool start web`, beside the flat flags that start
//! a guest as Firecracker's jailer does ([`crate::cli`], which comes here if the first word is no flag).
//!
//! Each command is a file: its arguments, its help, and a `run` that does it. A new one is a line in
//! [`Command`] and an arm in [`Command::run`].

mod clean;
mod console;
mod create;
mod fork;
mod list;
mod pool;
mod start;
mod stop;
pub mod table;
mod undefine;
mod volume;

use crate::error::Error;
use crate::privileges;
use crate::signals::{self, Held};
use crate::undo::Undo;
use argh::{FromArgs, SubCommands as _};
use resources::Problem;
use std::fmt::Write as _;

/// What the command line asks for, and what to print instead of doing it.
#[derive(Debug)]
pub enum Parsed {
    /// Do this.
    Run(Box<Command>),
    /// Print this and end with status 0.
    Print(String),
}

/// A command.
#[derive(Debug, FromArgs)]
#[argh(subcommand)]
pub enum Command {
    /// Make a guest and start it.
    Create(create::Create),
    /// Start a guest.
    Start(start::Start),
    /// Shut a guest down.
    Stop(stop::Stop),
    /// Copy a running guest.
    Fork(fork::Fork),
    /// End a guest at once.
    Destroy(stop::Destroy),
    /// List the guests.
    List(list::List),
    /// Show a guest.
    Show(list::Show),
    /// Attach to a guest's console.
    Console(console::Console),
    /// Forget a guest.
    Undefine(undefine::Undefine),
    /// Become a guest's VMM.
    Run(start::Run),
    /// Remove what a guest left.
    Clean(clean::Clean),
    /// Storage pools.
    Pool(pool::Pool),
    /// Disk images in them.
    Volume(volume::Volume),
}

/// Prepares guests on this host: commands. `jailer --help` tells of the flags that start a guest.
#[derive(FromArgs)]
struct Program {
    #[argh(subcommand)]
    command: Command,
}

/// Reads a command line, without the program's name, whose first word is no flag.
///
/// # Errors
/// What to tell the user, who gets status 153.
pub fn parse(words: &[&str]) -> Result<Parsed, String> {
    let first = words.first().copied().unwrap_or_default();
    if first != "help" && !Command::COMMANDS.iter().any(|known| known.name == first) {
        return Err(format!("there is no command `{first}`.\n\n{}", list()));
    }
    match Program::from_args(&["jailer"], words) {
        Ok(program) => Ok(Parsed::Run(Box::new(program.command))),
        Err(early) if early.status.is_ok() => Ok(Parsed::Print(early.output)),
        Err(early) => Err(format!(
            "{}\n(`jailer {first} --help` tells how it is used)",
            early.output.trim_end()
        )),
    }
}

/// The commands, a line each: the first sentence of what they tell.
pub fn list() -> String {
    let mut text = String::from("Commands (`jailer COMMAND --help` tells more):\n");
    for command in Command::COMMANDS {
        let about = command.description.split_inclusive(['.', ':']).next();
        let about = about.unwrap_or_default().trim_end_matches(['.', ':']);
        let _ = writeln!(text, "  {:<10}  {about}", command.name);
    }
    text
}

impl Command {
    /// Does it.
    ///
    /// # Errors
    /// [`Error`], told so that a user can mend it.
    pub fn run(self) -> Result<(), Error> {
        match self {
            Self::Create(create) => create.run(),
            Self::Start(start) => start.run(),
            Self::Stop(stop) => stop.run(),
            Self::Fork(fork) => fork.run(),
            Self::Destroy(destroy) => destroy.run(),
            Self::List(list) => list.run(),
            Self::Show(show) => show.run(),
            Self::Console(console) => console.run(),
            Self::Undefine(undefine) => undefine.run(),
            Self::Run(run) => run.run(),
            Self::Clean(clean) => clean.run(),
            Self::Pool(pool) => pool.run(),
            Self::Volume(volume) => volume.run(),
        }
    }
}

/// Changes something on the host: what `action` records is taken back if it fails or is interrupted.
fn change(action: impl FnOnce(&mut Undo) -> Result<(), Error>) -> Result<(), Error> {
    // What an image is open to is tried as another user, who must not have the superuser's groups.
    privileges::drop_groups().map_err(Error::step("leave the groups of the superuser"))?;
    let held = Held::new()?;
    let mut undo = Undo::new(signals::check);
    let done = action(&mut undo);
    if done.is_ok() {
        undo.keep();
    } else {
        drop(undo);
    }
    // A signal that came meanwhile ends us here, so that who waits for us sees that it did.
    drop(held);
    done
}

fn need_root() -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let message = "must be started by root for this, e.g. with sudo";
    Err(Error::Problems(vec![Problem::new("jailer", message)]))
}

fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|e| Error::step("write JSON")(std::io::Error::other(e)))?;
    println!("{text}");
    Ok(())
}

#[cfg(test)]
#[path = "mod_test.rs"]
mod mod_test;
