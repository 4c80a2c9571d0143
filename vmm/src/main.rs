//! `bantam`: boots a guest from its JSON file and ends with what became of it.

use std::io::Write as _;
use std::process::ExitCode;
use vmm::{cli, exit_status, logging, run};

fn main() -> ExitCode {
    let started = std::time::Instant::now();
    let options = match cli::parse(std::env::args_os()) {
        Ok(cli::Action::Run(options)) => options,
        Ok(cli::Action::Print(text)) => {
            // A reader that went away, as `head` does, is no failure of ours.
            let _ = std::io::stdout().write_all(text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(message) => {
            logging::print(&format!("{message}\n"));
            return ExitCode::from(exit_status::BAD_ARGUMENTS);
        }
    };
    logging::init(options.level);
    match run::run(&options, started) {
        Ok(outcome) => ExitCode::from(outcome.status()),
        Err(error) => {
            logging::print_error(&error);
            ExitCode::from(error.status())
        }
    }
}
