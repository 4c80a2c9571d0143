//! Errors of the programs, worded so that a user can mend the cause, and the exit statuses they lead to.

use nix::sys::signal::Signal;
use resources::Problem;
use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;

/// Why a start or a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Everything that was found wrong before anything was made.
    #[error("{}", list(.0))]
    Problems(Vec<Problem>),
    /// The guest, pool or volume is in a state that forbids the command.
    #[error("{0}")]
    Refused(String),
    /// The command line cannot be used.
    #[error("{0}")]
    Arguments(String),
    /// The host refused a step.
    #[error("cannot {step}")]
    Step {
        /// The step, with the file or device, the key that asked for it, and the remedy.
        step: String,
        /// The host's reason.
        #[source]
        source: io::Error,
    },
    /// The process that was to become the monitor failed, with this message.
    #[error("{0}")]
    Child(String),
    /// Another process of this program has reported the error, and ended with this status.
    #[error("another process has reported the error")]
    Reported(u8),
    /// A signal asked the program to stop.
    #[error("stopped by {0}")]
    Stopped(Signal),
}

impl Error {
    /// Returns a function for `map_err`: the step `step` failed, e.g. "create the bridge br0".
    pub fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        |source| Self::Step {
            step: step.into(),
            source: source.into(),
        }
    }

    /// Returns the process's exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Problems(_) | Self::Refused(_) => BAD_CONFIGURATION,
            Self::Reported(status) => *status,
            Self::Arguments(_) => BAD_ARGUMENTS,
            Self::Step { .. } | Self::Child(_) | Self::Stopped(_) => HOST_FAILURE,
        }
    }
}

/// Exit status if the host refused a step; the monitor's is the same.
pub const HOST_FAILURE: u8 = 1;
/// Exit status if the configuration or a file it names cannot be used; the monitor's is the same.
pub const BAD_CONFIGURATION: u8 = 152;
/// Exit status if the command line cannot be used; the monitor's is the same.
pub const BAD_ARGUMENTS: u8 = 153;

/// The running program's name.
static PROGRAM: OnceLock<&str> = OnceLock::new();

/// Sets the name that messages begin with; it is `jailer` until then.
pub fn name_program(name: &'static str) {
    let _ = PROGRAM.set(name);
}

/// Returns the name that messages begin with.
pub fn program() -> &'static str {
    PROGRAM.get().unwrap_or(&"jailer")
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => one.to_string(),
        many => {
            let mut text = format!("{} problems:", many.len());
            for problem in many {
                let _ = write!(text, "\n  {problem}");
            }
            text
        }
    }
}

/// Returns `error` and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Prints `error`, unless another process has done so.
pub fn report(error: &Error) {
    if !matches!(error, Error::Reported(_)) {
        eprintln!("{}: error: {}", program(), chain(error));
    }
}

/// Prints `message` as a warning.
pub fn warn(message: &str) {
    eprintln!("{}: warning: {message}", program());
}
