//! `jailer`: prepares a guest on the host as root, takes every privilege away from itself and becomes the
//! guest's VMM by exec, so that its process id is the guest's from the start.
//!
//! [`check`] finds everything wrong before anything is made; [`make`] makes it, each step recorded in
//! [`undo`], so that a start that fails leaves nothing behind; [`become_vmm`] takes the privileges
//! away. No daemon stays.

mod check;
mod chroot;
mod cli;
mod commands;
mod dir;
mod error;
mod exec_file;
mod guardian;
mod jail_config;
mod namespaces;
mod network;
mod privileges;
mod progress;
mod signals;
mod storage;
mod tool;
mod undo;
mod vmm;

use check::Plan;
use cli::Options;
use error::Error;
use signals::Held;
use std::convert::Infallible;
use std::process::ExitCode;
use undo::Undo;
use vmm::{Started, Vmm};

fn main() -> ExitCode {
    let started = Started::now();
    let options = match cli::parse(std::env::args_os()) {
        Ok(cli::Action::Start(options)) => *options,
        Ok(cli::Action::Command(command)) => return run(*command),
        Ok(cli::Action::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(error::BAD_ARGUMENTS);
        }
    };
    let Err(error) = start(&options, started);
    eprintln!("jailer: error: {}", error::chain(&error));
    ExitCode::from(error.status())
}

/// Does what is no start by flags.
fn run(command: commands::Command) -> ExitCode {
    // Who reads our lists may have had enough.
    signals::restore_pipe();
    match vmm::close_inherited().and_then(|()| command.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("jailer: error: {}", error::chain(&error));
            ExitCode::from(error.status())
        }
    }
}

/// Does not return if all goes well: the process is the VMM by then.
fn start(options: &Options, started: Started) -> Result<Infallible, Error> {
    vmm::close_inherited()?;
    let plan = check::check(options)?;
    let held = Held::new()?;
    let mut undo = Undo::new(signals::check);
    let vmm = make(options, started, plan, &mut undo)?;
    guardian::run_last(undo, move || become_vmm(options, &vmm, held))
}

/// Makes everything on the host, and goes into the jail.
fn make(options: &Options, started: Started, plan: Plan, undo: &mut Undo) -> Result<Vmm, Error> {
    let jail = chroot::Jail::claim(options, undo)?;
    jail.furnish(&plan.exec, &options.exec_name, undo)?;
    let Some(guest) = plan.guest else {
        let lock = jail.enter(None, plan.home, undo)?;
        return Ok(Vmm::new(options, started, lock, Vec::new(), false));
    };
    let files = guest.files.make(options.owner, undo)?;
    let taps = network::make(guest.interfaces, options.owner.uid, undo)?;
    let jailed = jail_config::jailed(guest.config.clone(), &vmm::numbers(&taps));
    jail.furnish_guest(&jailed, undo)?;
    let lock = jail.enter(Some((&guest.config, &files)), plan.home, undo)?;
    Ok(Vmm::new(options, started, lock, taps, true))
}

/// Takes the privileges away and executes the VMM.
fn become_vmm(options: &Options, vmm: &Vmm, held: Held) -> Result<Infallible, Error> {
    let (uid, gid) = (options.owner.uid, options.owner.gid);
    privileges::limit(options.limits).map_err(Error::step("set --resource-limit"))?;
    privileges::drop_all(options.owner)
        .map_err(Error::step(format!("become user {uid} and group {gid}")))?;
    signals::restore_pipe();
    drop(held);
    vmm.execute()
}

#[cfg(test)]
#[path = "main_test.rs"]
mod main_test;
