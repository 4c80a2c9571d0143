//! `bantam`: runs a guest and ends with what became of it.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use vmm::snapshot::format;
use vmm::{check, cli, exit_status, logging, run};

fn main() -> ExitCode {
    let started = std::time::Instant::now();
    let options = match cli::parse(std::env::args_os()) {
        Ok(cli::Action::Run(options)) => options,
        Ok(cli::Action::Check(file)) => return check(&file),
        Ok(cli::Action::Snapshot(command)) => return command.run(),
        Ok(cli::Action::Describe(file)) => return describe(&file),
        Ok(cli::Action::Print(text)) => return print(&text),
        Err(message) => {
            logging::print(&format!("{message}\n"));
            return ExitCode::from(exit_status::BAD_ARGUMENTS);
        }
    };
    match run::run(&options, started) {
        Ok(outcome) => ExitCode::from(outcome.status()),
        Err(error) => {
            logging::print_error(&error);
            ExitCode::from(error.status())
        }
    }
}

fn print(text: &str) -> ExitCode {
    // A reader that went away, as `head` does, is no failure of ours.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn describe(file: &Path) -> ExitCode {
    match format::describe(file) {
        Ok(version) => print(&format!("{version}\n")),
        Err(error) => {
            logging::print_error(&error);
            ExitCode::from(exit_status::HOST_FAILURE)
        }
    }
}

fn check(file: &Path) -> ExitCode {
    let (problems, warnings) = check::problems(file);
    for warning in warnings {
        logging::print(&format!("bantam: warning: {warning}\n"));
    }
    logging::print(&check::report(file, &problems));
    match problems.is_empty() {
        true => {
            logging::print(&format!(
                "{}: a guest can be started from it\n",
                file.display()
            ));
            ExitCode::SUCCESS
        }
        false => ExitCode::from(exit_status::BAD_CONFIGURATION),
    }
}
