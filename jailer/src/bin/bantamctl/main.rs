//! `bantamctl`: guests, storage pools and volumes by name. Its commands and options are named after those of virsh and
//! virt-install.
//!
//! It links the library of `jailer`, so that `bantamctl run` becomes a guest's monitor without another program between.
//! There is no daemon: a guest is a process, and its definition is a file.

mod cli;
mod commands;
mod guests;
mod size;
mod table;
mod units;

use cli::Command;
use jailer::error::{self, Error};
use jailer::jail::close_inherited;
use jailer::sys::signals;
use std::process::ExitCode;

fn main() -> ExitCode {
    error::name_program("bantamctl");
    // A reader of a list or of a help text may close its pipe early.
    signals::restore_pipe();
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(output) => return output.print(),
    };
    match close_inherited().and_then(|()| run(command)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            error::report(&e);
            ExitCode::from(e.status())
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Create(create) => create.run(),
        Command::Start(start) => start.run(),
        Command::Stop(stop) => stop.run(),
        Command::Destroy(destroy) => destroy.run(),
        Command::List(list) => list.run(),
        Command::Show(show) => show.run(),
        Command::Console(console) => console.run(),
        Command::Fork(fork) => fork.run(),
        Command::Undefine(undefine) => undefine.run(),
        Command::Clean(clean) => clean.run(),
        Command::Run(run) => run.run(),
        Command::Pool(pool) => pool.run(),
        Command::Volume(volume) => volume.run(),
        Command::Completion(completion) => {
            completion.run();
            Ok(())
        }
        Command::Man(man) => man.run(),
    }
}
