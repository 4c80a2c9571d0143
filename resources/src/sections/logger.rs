//! Where messages go, and which.

use serde::{Deserialize, Deserializer, Serialize};
use std::path::PathBuf;
use std::str::FromStr;

/// Least importance of a message that is written, written in any case: `Info`, `warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Level {
    /// Nothing.
    Off,
    /// What failed.
    Error,
    /// What may not be as the user wants it.
    Warn,
    /// What happens.
    Info,
    /// What helps to find a fault.
    Debug,
    /// Everything.
    Trace,
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.to_ascii_lowercase().as_str() {
            "off" => Ok(Self::Off),
            "error" => Ok(Self::Error),
            "warn" | "warning" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            // The text is the compatible monitor's, as far as it goes.
            _ => Err("Invalid LevelFilter: use off, error, warning, info, debug or trace".into()),
        }
    }
}

impl<'de> Deserialize<'de> for Level {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The `logger` section. What is absent stays as it is, but for the level, which is then `Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logger {
    /// File or FIFO; standard output if never set.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// Which messages.
    #[serde(default)]
    pub level: Option<Level>,
    /// Whether each message tells its level.
    #[serde(default)]
    pub show_level: Option<bool>,
    /// Whether each message tells its place in the source.
    #[serde(default)]
    pub show_log_origin: Option<bool>,
    /// Only messages of this part of the program, e.g. `devices::net`.
    #[serde(default)]
    pub module: Option<String>,
}
