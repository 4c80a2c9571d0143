//! `bantam`: runs a guest and exits with the guest's outcome.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use vmm::process::{check, cli, exit_status, logging, messages};
use vmm::snapshot::format;
use vmm::{run, seccomp, snapshot};

fn main() -> ExitCode {
    let started = std::time::Instant::now();
    let options = match cli::parse(std::env::args_os()) {
        Ok(cli::Action::Run(options)) => options,
        Ok(cli::Action::Check(file)) => return check(&file),
        Ok(cli::Action::Snapshot(command)) => return snapshot::run_tool(command),
        Ok(cli::Action::DescribeSnapshot(file)) => return describe(&file),
        Ok(cli::Action::PrintSnapshotVersion) => {
            return print(&format!("{}\n", format::version_text(format::VERSION)));
        }
        Ok(cli::Action::PrintSeccompFilter) => return print(seccomp::DEFAULT),
        Ok(cli::Action::Print(text)) => return print(&text),
        Err(message) => {
            messages::print(&format!("{message}\n"));
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
    // A reader that closed the pipe, as `head` does, is not a failure.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn describe(file: &Path) -> ExitCode {
    match snapshot::describe(file) {
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
        messages::print(&format!("bantam: warning: {warning}\n"));
    }
    messages::print(&check::report(file, &problems));
    match problems.is_empty() {
        true => {
            messages::print(&format!(
                "{}: a guest can be started from this file\n",
                file.display()
            ));
            ExitCode::SUCCESS
        }
        false => ExitCode::from(exit_status::BAD_CONFIGURATION),
    }
}
