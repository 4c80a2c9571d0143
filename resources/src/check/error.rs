//! The errors of a configuration file.

use crate::check::problem::Problem;
use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};

/// Largest configuration file in bytes. A thousand drives fit, and a disk image passed by mistake does not fill memory.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The reason why a configuration cannot be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
    /// The file is larger than [`MAX_CONFIG_BYTES`].
    #[error("{} is larger than {MAX_CONFIG_BYTES} bytes: is it the configuration file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not valid JSON, or a value has the wrong type.
    #[error("{}: {key}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The key whose value is wrong, `(file)` if the JSON itself is.
        key: String,
        /// The error with line and column.
        message: String,
    },
    /// Values that cannot be used.
    #[error("{}:{}", path.display(), list(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All problems.
        problems: Vec<Problem>,
    },
}

fn list(problems: &[Problem]) -> String {
    match problems {
        [one] => format!(" {one}"),
        many => many.iter().fold(String::new(), |mut text, problem| {
            let _ = write!(text, "\n  {problem}");
            text
        }),
    }
}

pub(crate) fn parse_error(path: &Path, key: String, error: &serde_json::Error) -> ConfigError {
    let hint = match error.classify() {
        serde_json::error::Category::Syntax => {
            " (the file must be JSON; a trailing comma or a comment is not)"
        }
        serde_json::error::Category::Eof => " (the file ends early)",
        _ => "",
    };
    ConfigError::Parse {
        path: path.into(),
        key: if key == "." { "(file)".into() } else { key },
        message: format!("{error}{hint}"),
    }
}
