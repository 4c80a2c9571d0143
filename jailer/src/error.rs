//! What ends the jailer, told so that a user can mend it.

use nix::sys::signal::Signal;
use resources::Problem;
use std::fmt::Write as _;
use std::io;

/// Why no guest was started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was found before anything was made: all of it.
    #[error("nothing was made, because{}", list(.0))]
    Problems(Vec<Problem>),
    /// The command line cannot be used.
    #[error("{0}")]
    Arguments(String),
    /// The host refused a step.
    #[error("cannot {step}")]
    Step {
        /// What was tried, with the file or device, the key that asked for it, and what to do.
        step: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The process that was to become the VMM could not.
    #[error("{0}")]
    Child(String),
    /// Another process of ours has told why, and ended with this status.
    #[error("it was not started, as told above")]
    Told(u8),
    /// A signal asked the jailer to end.
    #[error("stopped by {0}")]
    Stopped(Signal),
}

impl Error {
    /// For `map_err`: the step failed that `step` describes, e.g. "create the bridge br0".
    pub fn step<E: Into<io::Error>>(step: impl Into<String>) -> impl FnOnce(E) -> Self {
        |source| Self::Step {
            step: step.into(),
            source: source.into(),
        }
    }

    /// The process's exit status.
    pub fn status(&self) -> u8 {
        match self {
            Self::Problems(_) => BAD_CONFIGURATION,
            Self::Told(status) => *status,
            Self::Arguments(_) => BAD_ARGUMENTS,
            Self::Step { .. } | Self::Child(_) | Self::Stopped(_) => HOST_FAILURE,
        }
    }
}

/// Status when the host refused something, as the VMM's.
pub const HOST_FAILURE: u8 = 1;
/// Status when the configuration or a file it names cannot be used, as the VMM's.
pub const BAD_CONFIGURATION: u8 = 152;
/// Status when the command line cannot be used, as the VMM's.
pub const BAD_ARGUMENTS: u8 = 153;

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => format!(" {one}"),
        many => many.iter().fold(String::new(), |mut text, problem| {
            let _ = write!(text, "\n  {problem}");
            text
        }),
    }
}

/// `error` and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let _ = write!(text, ": {cause}");
        source = cause.source();
    }
    text
}

/// Prints `message` as a warning; the operator sees it before the guest's console begins.
pub fn warn(message: &str) {
    eprintln!("jailer: warning: {message}");
}
