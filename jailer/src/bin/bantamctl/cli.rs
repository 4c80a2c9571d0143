//! The command line of `bantamctl`: the list of commands, their help, shell completions and man pages.

use crate::commands::{
    clean, console, create, destroy, fork, list, pool, run, show, start, stop, undefine, volume,
};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};
use jailer::error::{BAD_ARGUMENTS, Error};
use std::ffi::OsString;
use std::fmt::Write as _;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

/// Guests, storage pools and volumes of this host, by name.
#[derive(Debug, Parser)]
#[command(
    name = "bantamctl",
    version,
    disable_help_subcommand = true,
    after_help = "`bantamctl COMMAND --help` shows a command's options and examples. Exit status: 0, or\n\
                  1 if the host refused a step, 152 if a definition, a file or a name cannot be used,\n\
                  153 for bad arguments.\n\n\
                  A guest's definition is /etc/bantam/vms/NAME.json, in the format of\n\
                  `jailer --config-file`; edit it, and the next start uses it."
)]
struct Program {
    #[command(subcommand)]
    command: Command,
}

/// A command.
#[derive(Debug, Subcommand)]
pub enum Command {
    Create(Box<create::Create>),
    Start(start::Start),
    Stop(stop::Stop),
    Destroy(destroy::Destroy),
    List(list::List),
    Show(show::Show),
    Console(console::Console),
    Fork(fork::Fork),
    Undefine(undefine::Undefine),
    Clean(clean::Clean),
    Run(run::Run),
    Pool(pool::Pool),
    Volume(volume::Volume),
    Completion(Completion),
    Man(Man),
}

/// Commands by subject, as `--help` lists them.
const GROUPS: [(&str, &[&str]); 4] = [
    (
        "Guests",
        &[
            "create", "list", "show", "start", "stop", "destroy", "console", "fork", "undefine",
        ],
    ),
    ("Storage", &["pool", "volume"]),
    ("Repair", &["clean"]),
    ("Other", &["run", "completion", "man"]),
];

/// Text to print in place of running a command.
#[derive(Debug)]
pub enum Output {
    /// Help or the version, for standard output.
    Requested(String),
    /// Help in place of a missing command.
    Missing(String),
    /// An error message about the command line.
    Wrong(String),
}

impl Output {
    /// Prints the text; returns the exit status.
    pub fn print(self) -> ExitCode {
        match self {
            Self::Requested(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Self::Missing(text) => {
                eprint!("{text}");
                ExitCode::from(BAD_ARGUMENTS)
            }
            Self::Wrong(text) => {
                eprintln!("bantamctl: error: {}", text.trim_end());
                ExitCode::from(BAD_ARGUMENTS)
            }
        }
    }
}

/// Reads the command line, of which the first word is the program's name.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Command, Output> {
    let matches = program().try_get_matches_from(arguments);
    let read = matches.and_then(|matches| Program::from_arg_matches(&matches));
    read.map(|program| program.command).map_err(|e| {
        let text = e.render().to_string();
        match e.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Output::Requested(text),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Output::Missing(text),
            _ => Output::Wrong(text.trim_start_matches("error: ").into()),
        }
    })
}

/// Returns the definition of the command line, with the commands grouped by subject.
fn program() -> clap::Command {
    let program = Program::command();
    let mut groups = String::new();
    for (title, names) in GROUPS {
        let _ = writeln!(groups, "{title}:");
        for name in names {
            let command = program.find_subcommand(name);
            let about = command.and_then(clap::Command::get_about);
            let about = about.map(ToString::to_string).unwrap_or_default();
            let _ = writeln!(groups, "  {name:<11} {about}");
        }
        groups.push('\n');
    }
    let template = format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{groups}Options:\n{{options}}{{after-help}}\n"
    );
    program.help_template(template)
}

/// A shell.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Print completions for a shell
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bantamctl completion bash >/etc/bash_completion.d/bantamctl\n  \
                  source <(bantamctl completion bash)"
)]
pub struct Completion {
    /// The shell
    shell: Shell,
}

impl Completion {
    pub fn run(&self) {
        let shell = match self.shell {
            Shell::Bash => clap_complete::Shell::Bash,
            Shell::Zsh => clap_complete::Shell::Zsh,
            Shell::Fish => clap_complete::Shell::Fish,
        };
        clap_complete::generate(
            shell,
            &mut Program::command(),
            "bantamctl",
            &mut io::stdout(),
        );
    }
}

/// Write man pages
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bantamctl man | man -l -\n  bantamctl man /usr/local/share/man/man1"
)]
pub struct Man {
    /// Directory for the pages of all commands (default: print this program's page)
    directory: Option<PathBuf>,
}

impl Man {
    pub fn run(self) -> Result<(), Error> {
        let program = Program::command();
        let Some(directory) = self.directory else {
            let page = clap_mangen::Man::new(program).render(&mut io::stdout());
            return page.map_err(Error::step("print the man page"));
        };
        let written = clap_mangen::generate_to(program, &directory);
        written.map_err(Error::step(format!("write to {}", directory.display())))
    }
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod cli_test;
