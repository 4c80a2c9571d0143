//! `jailer`: prepares a guest on the host as root, drops every privilege and becomes the guest's monitor by exec, so
//! that its process id is the guest's from the start. No daemon stays behind.

mod cli;

use cli::Action;
use jailer::error::{BAD_ARGUMENTS, Error, report};
use jailer::jail::clean::clean;
use jailer::jail::{Started, close_inherited, start};
use std::process::ExitCode;

fn main() -> ExitCode {
    let started = Started::now();
    let ended = match cli::parse(std::env::args_os()) {
        Ok(Action::Start(options)) => {
            let Err(error) = start::start(*options, started);
            Err(error)
        }
        Ok(Action::Clean(jail)) => {
            close_inherited().and_then(|()| clean(&jail.base, &jail.exec_name, &jail.id))
        }
        Ok(Action::Print(text)) => {
            print!("{text}");
            Ok(())
        }
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(BAD_ARGUMENTS);
        }
    };
    ended.map_or_else(failed, |()| ExitCode::SUCCESS)
}

fn failed(error: Error) -> ExitCode {
    report(&error);
    ExitCode::from(error.status())
}
