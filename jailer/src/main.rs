//! `jailer`: prepares a guest on the host as root, takes every privilege away from itself and becomes the
//! guest's VMM by exec, so that its process id is the guest's from the start.
//!
//! Flags start a guest as Firecracker's jailer does ([`start`]); words are commands ([`commands`]).
//! No daemon stays.

mod cgroup;
mod check;
mod chroot;
mod clean;
mod cli;
mod commands;
mod detach;
mod dir;
mod error;
mod exec_file;
mod guardian;
mod guests;
mod image;
mod jail_config;
mod landlocked;
mod namespaces;
mod network;
mod privileges;
mod progress;
mod record;
mod seed;
mod signals;
mod start;
mod state;
mod storage;
mod terminal;
mod tool;
mod uids;
mod undo;
mod units;
mod vmm;

use std::process::ExitCode;
use vmm::Started;

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
    let Err(error) = start::start(options, started);
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
