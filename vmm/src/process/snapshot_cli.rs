//! The command line of `bantam snapshot`.

use argh::FromArgs;
use std::path::PathBuf;

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
    command: SnapshotCommand,
}

/// What to do.
#[derive(Debug, FromArgs)]
#[argh(subcommand)]
pub enum SnapshotCommand {
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
    pub state: PathBuf,
    /// for programs
    #[argh(switch)]
    pub json: bool,
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
    pub state: PathBuf,
    /// the file with the memory
    #[argh(positional)]
    pub memory: Option<PathBuf>,
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
    pub state: PathBuf,
    /// the file with its memory
    #[argh(positional)]
    pub memory: Option<PathBuf>,
    /// directory for the two files, made if it is not there
    #[argh(option)]
    pub output: Option<PathBuf>,
    /// file for the state, in place of --output
    #[argh(option)]
    pub to_state: Option<PathBuf>,
    /// file for the memory
    #[argh(option)]
    pub to_memory: Option<PathBuf>,
}

/// What the words after `bantam snapshot` are.
#[derive(Debug)]
pub enum Parsed {
    /// Something to do.
    Run(SnapshotCommand),
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
                _ => return Err("merge: say where to, by --output DIRECTORY".into()),
            }
        }
        Ok(self)
    }
}
