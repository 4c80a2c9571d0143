//! The actions of `bantam snapshot`.

use super::directory::files_in;
use super::info::Info;
use super::merge::merge;
use super::verify::verify;
use crate::process::messages::{chain, print};
use crate::process::progress::Progress;
use crate::process::snapshot_cli::{
    InfoArguments, MergeArguments, SnapshotCommand, VerifyArguments,
};
use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

/// Returns the two files that the user named.
fn files(state: PathBuf, memory: Option<PathBuf>) -> Result<(PathBuf, PathBuf), String> {
    match memory {
        Some(memory) => Ok((state, memory)),
        None if state.is_dir() => Ok(files_in(&state)),
        None => Err(format!(
            "{} is not a directory: name the memory file, too",
            state.display()
        )),
    }
}

/// Runs `command` and prints its result.
pub fn run(command: SnapshotCommand) -> ExitCode {
    let done = match command {
        SnapshotCommand::Info(arguments) => info(arguments),
        SnapshotCommand::Verify(arguments) => verify_files(arguments),
        SnapshotCommand::Merge(arguments) => merge_files(arguments),
    };
    match done {
        Ok(text) => {
            // A reader that closed the pipe, as `head` does, is not a failure.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(text) => {
            print(&text);
            ExitCode::FAILURE
        }
    }
}

/// Returns the message for `error`.
fn failed(error: impl Error) -> String {
    format!("bantam: error: {}\n", chain(&error))
}

fn info(InfoArguments { state, json }: InfoArguments) -> Result<String, String> {
    let state = match state.is_dir() {
        true => files_in(&state).0,
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
            "{}: snapshot {} is intact: {} MiB of memory in {} {}\n",
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
        (Some(directory), None) => files_in(directory),
        (None, None) => return Err("bantam: error: merge: name the target\n".into()),
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
            // A directory that was created is removed, if it is empty.
            if let Some(directory) = made {
                let _ = std::fs::remove_dir(directory);
            }
            Err(failed(e))
        }
    }
}
