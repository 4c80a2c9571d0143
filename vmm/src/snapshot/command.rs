//! `bantam snapshot …`: what a person or a script does with snapshots, beside guests.

use super::info::Info;
use super::merge::merge;
use super::verify::verify;
use crate::logging::{chain, print};
use crate::progress::Progress;
use argh::FromArgs;
use std::error::Error;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// The file with the state, in a directory that is a snapshot.
const STATE: &str = "state";
/// The file with the memory, likewise.
const MEMORY: &str = "memory";

/// Tells of snapshots, checks them, and makes one of several.
#[derive(Debug, FromArgs)]
#[argh(
    name = "snapshot",
    example = "bantam snapshot info web1.state\nbantam snapshot verify web1.state web1.memory\nbantam snapshot merge web1-diff.state web1-diff.memory --output web1\nbantam --no-api --restore web1",
    note = "A snapshot is two files, as PUT /snapshot/create writes them; a directory is one if it has the\nfiles `state` and `memory`. Those that a diff lies upon are found where they were written,\nor beside it.",
    error_code(0, "done, and nothing is wrong"),
    error_code(1, "the snapshot cannot be used, or the host refused something"),
    error_code(153, "bad arguments")
)]
struct Arguments {
    #[argh(subcommand)]
    command: Command,
}

/// What to do.
#[derive(Debug, FromArgs)]
#[argh(subcommand)]
pub enum Command {
    /// Tell.
    Info(InfoArguments),
    /// Check.
    Verify(VerifyArguments),
    /// Make one.
    Merge(MergeArguments),
}

/// Tells which snapshot it is, of when and of what guest, and what it lies upon.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "info",
    example = "bantam snapshot info web1 --json"
)]
pub struct InfoArguments {
    /// the file with the state, or the directory of both files
    #[argh(positional)]
    state: PathBuf,
    /// for programs
    #[argh(switch)]
    json: bool,
}

/// Reads all of a snapshot, and of those it lies upon, and says everything that is not as it was written.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "verify",
    example = "bantam snapshot verify web1\nbantam snapshot verify web1.state web1.memory",
    note = "Checksums find what a disk lost or a copy cut off; who can write the files can make them right."
)]
pub struct VerifyArguments {
    /// the file with the state, or the directory of both files
    #[argh(positional)]
    state: PathBuf,
    /// the file with the memory
    #[argh(positional)]
    memory: Option<PathBuf>,
}

/// Makes one full snapshot of a diff and those it lies upon, which stay as they are. It is the same snapshot as
/// the diff: later diffs upon that lie on this one, too. Blocks are shared where the file system can.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "merge",
    example = "bantam snapshot merge diff3.state diff3.memory --output web1\nbantam snapshot merge diff3 --to-state web1.state --to-memory web1.memory",
    note = "The files merged stay as they are. The result is the same snapshot as the last of them: a diff that was\nwritten upon that one loads upon the result, once the result's files have the places of that one's (or\nlie beside the diff, under the same names). Another snapshot there is refused, by name."
)]
pub struct MergeArguments {
    /// the file with the state of the last diff, or the directory of both files
    #[argh(positional)]
    state: PathBuf,
    /// the file with its memory
    #[argh(positional)]
    memory: Option<PathBuf>,
    /// directory for the two files, made if it is not there
    #[argh(option)]
    output: Option<PathBuf>,
    /// file for the state, in place of --output
    #[argh(option)]
    to_state: Option<PathBuf>,
    /// file for the memory
    #[argh(option)]
    to_memory: Option<PathBuf>,
}

/// What the words after `bantam snapshot` are.
#[derive(Debug)]
pub enum Parsed {
    /// Something to do.
    Run(Command),
    /// Something to print.
    Print(String),
}

/// Reads the words after `bantam snapshot`.
///
/// # Errors
/// What to tell the user.
pub fn parse(words: &[&str]) -> Result<Parsed, String> {
    // Without any, the help tells more than what is missing.
    let words = match words {
        [] => &["--help"],
        words => words,
    };
    match Arguments::from_args(&["bantam", "snapshot"], words) {
        Ok(Arguments { command }) => command.check().map(Parsed::Run),
        Err(early) if early.status.is_ok() => Ok(Parsed::Print(early.output)),
        Err(early) => Err(early.output.trim_end().into()),
    }
}

/// The two files of the snapshot in `directory`.
pub fn in_directory(directory: &Path) -> (PathBuf, PathBuf) {
    (directory.join(STATE), directory.join(MEMORY))
}

/// The two files that the user means.
fn files(state: PathBuf, memory: Option<PathBuf>) -> Result<(PathBuf, PathBuf), String> {
    match memory {
        Some(memory) => Ok((state, memory)),
        None if state.is_dir() => Ok(in_directory(&state)),
        None => Err(format!(
            "{} is no directory: name the file with the memory, too",
            state.display()
        )),
    }
}

impl Command {
    fn check(self) -> Result<Self, String> {
        if let Self::Merge(MergeArguments {
            output,
            to_state,
            to_memory,
            ..
        }) = &self
        {
            match (output, to_state, to_memory) {
                (Some(_), None, None) | (None, Some(_), Some(_)) => {}
                _ => return Err("merge: say where to, by --output DIRECTORY".into()),
            }
        }
        Ok(self)
    }

    /// Does it, and tells the user.
    pub fn run(self) -> ExitCode {
        let done = match self {
            Self::Info(arguments) => info(arguments),
            Self::Verify(arguments) => verify_files(arguments),
            Self::Merge(arguments) => merge_files(arguments),
        };
        match done {
            Ok(text) => {
                // A reader that went away, as `head` does, is no failure of ours.
                let _ = std::io::stdout().write_all(text.as_bytes());
                ExitCode::SUCCESS
            }
            Err(text) => {
                print(&text);
                ExitCode::FAILURE
            }
        }
    }
}

/// For `map_err`: a message for the user.
fn failed(error: impl Error) -> String {
    format!("bantam: error: {}\n", chain(&error))
}

fn info(InfoArguments { state, json }: InfoArguments) -> Result<String, String> {
    let state = match state.is_dir() {
        true => in_directory(&state).0,
        false => state,
    };
    let info = Info::read(&state).map_err(failed)?;
    Ok(match json {
        true => format!("{:#}\n", info.json()),
        false => info.text(),
    })
}

fn verify_files(VerifyArguments { state, memory }: VerifyArguments) -> Result<String, String> {
    let files = files(state, memory).map_err(|e| format!("bantam: error: {e}\n"))?;
    let (state, memory) = (files.0.as_path(), files.1.as_path());
    let verdict = verify((state, memory), &mut Progress::new()).map_err(failed)?;
    for note in &verdict.notes {
        print(&format!("bantam: warning: {note}\n"));
    }
    match verdict.problems.as_slice() {
        [] => Ok(format!(
            "{}: snapshot {} is as it was written: {} MiB of memory in {} {}\n",
            state.display(),
            verdict.id,
            verdict.bytes >> 20,
            verdict.links,
            match verdict.links {
                1 => "file",
                _ => "files",
            },
        )),
        problems => {
            let lines = problems.iter().map(|problem| format!("{problem}\n"));
            Err(lines.collect())
        }
    }
}

fn merge_files(arguments: MergeArguments) -> Result<String, String> {
    let files = files(arguments.state, arguments.memory);
    let (state, memory) = files.map_err(|e| format!("bantam: error: {e}\n"))?;
    let to = match (
        &arguments.output,
        arguments.to_state.zip(arguments.to_memory),
    ) {
        (_, Some(to)) => to,
        (Some(directory), None) => in_directory(directory),
        (None, None) => return Err("bantam: error: merge: say where to\n".into()),
    };
    let made = arguments.output.as_deref().filter(|path| !path.exists());
    if let Some(directory) = made {
        std::fs::create_dir(directory)
            .map_err(|e| format!("bantam: error: {}: {e}\n", directory.display()))?;
    }
    let merged = merge((&state, &memory), (&to.0, &to.1), &mut Progress::new());
    match merged {
        Ok(bytes) => Ok(format!(
            "{}: {} MiB of memory\n",
            to.0.display(),
            bytes >> 20
        )),
        Err(e) => {
            // What was made is taken back; it is empty, or stays.
            if let Some(directory) = made {
                let _ = std::fs::remove_dir(directory);
            }
            Err(failed(e))
        }
    }
}
