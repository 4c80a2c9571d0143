//! The command line of `bantam snapshot`.

use argh::FromArgs;
use std::path::PathBuf;

/// Inspects, verifies and merges snapshots.
#[derive(Debug, FromArgs)]
#[argh(
    name = "snapshot",
    example = "bantam snapshot info web1.state\nbantam snapshot verify web1.state web1.memory\nbantam snapshot merge web1-diff.state web1-diff.memory --output web1\nbantam --no-api --restore web1",
    note = "A snapshot has two files, as PUT /snapshot/create writes them. A directory with the files `state` and\n`memory` is a snapshot, too. The bases of a diff are found where they were written, or beside the diff.",
    error_code(0, "success, and nothing is wrong"),
    error_code(1, "the snapshot cannot be used, or the host refused something"),
    error_code(153, "bad arguments")
)]
struct Arguments {
    #[argh(subcommand)]
    command: SnapshotCommand,
}

/// An action on snapshots.
#[derive(Debug, FromArgs)]
#[argh(subcommand)]
pub enum SnapshotCommand {
    /// Print a snapshot's metadata.
    Info(InfoArguments),
    /// Verify checksums.
    Verify(VerifyArguments),
    /// Merge a chain of diffs.
    Merge(MergeArguments),
}

/// Prints a snapshot's id, time, guest and bases.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "info",
    example = "bantam snapshot info web1 --json"
)]
pub struct InfoArguments {
    /// state file, or directory of both files
    #[argh(positional)]
    pub state: PathBuf,
    /// print JSON
    #[argh(switch)]
    pub json: bool,
}

/// Reads a snapshot and its bases completely, and reports everything that differs from what was written.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "verify",
    example = "bantam snapshot verify web1\nbantam snapshot verify web1.state web1.memory",
    note = "Checksums detect what a disk lost or a copy cut off. They do not detect an attacker who can write the files."
)]
pub struct VerifyArguments {
    /// state file, or directory of both files
    #[argh(positional)]
    pub state: PathBuf,
    /// memory file
    #[argh(positional)]
    pub memory: Option<PathBuf>,
}

/// Merges a diff and its bases into one full snapshot with the id of the diff, so that later diffs load on it, too.
/// Shares blocks with the input files where the file system can.
#[derive(Debug, FromArgs)]
#[argh(
    subcommand,
    name = "merge",
    example = "bantam snapshot merge diff3.state diff3.memory --output web1\nbantam snapshot merge diff3 --to-state web1.state --to-memory web1.memory",
    note = "The input files stay as they are. The result has the id of the last diff, DIFF. To load a later diff, whose base\nis DIFF, move the result to the paths of DIFF's files, or put it beside the later diff under the names of\nDIFF's files. A snapshot with another id at these paths is refused."
)]
pub struct MergeArguments {
    /// state file of the last diff, or directory of both files
    #[argh(positional)]
    pub state: PathBuf,
    /// memory file of the last diff
    #[argh(positional)]
    pub memory: Option<PathBuf>,
    /// directory for the merged files; it is created if it does not exist
    #[argh(option)]
    pub output: Option<PathBuf>,
    /// file for the merged state, instead of --output
    #[argh(option)]
    pub to_state: Option<PathBuf>,
    /// file for the merged memory, instead of --output
    #[argh(option)]
    pub to_memory: Option<PathBuf>,
}

/// The parsed words after `bantam snapshot`.
#[derive(Debug)]
pub enum Parsed {
    /// An action to run.
    Run(SnapshotCommand),
    /// A text to print.
    Print(String),
}

/// Parses the words after `bantam snapshot`.
///
/// # Errors
/// The message for the user.
pub fn parse(words: &[&str]) -> Result<Parsed, String> {
    // Without words, print the help instead of an error.
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

impl SnapshotCommand {
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
                _ => return Err("merge: name the target by --output DIRECTORY, or by --to-state and --to-memory".into()),
            }
        }
        Ok(self)
    }
}
