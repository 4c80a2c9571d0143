//! The `logger` section.

use serde::{Deserialize, Deserializer, Serialize};
use std::path::PathBuf;
use std::str::FromStr;

/// The least severe level that is logged. Letter case does not matter: `Info`, `warning`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Level {
    /// No messages.
    Off,
    /// Failures.
    Error,
    /// Possible problems.
    Warn,
    /// Normal events.
    Info,
    /// Details for debugging.
    Debug,
    /// All messages.
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
            // The text begins with Firecracker's.
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

/// The `logger` section. Absent fields stay unchanged, except for the level, which becomes `Info`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Logger {
    /// Path of a file or FIFO; standard output if never set.
    #[serde(default)]
    pub log_path: Option<PathBuf>,
    /// Level.
    #[serde(default)]
    pub level: Option<Level>,
    /// True to include the level in each message.
    #[serde(default)]
    pub show_level: Option<bool>,
    /// True to include the source location in each message.
    #[serde(default)]
    pub show_log_origin: Option<bool>,
    /// Module to which messages are restricted, e.g. `devices::net`.
    #[serde(default)]
    pub module: Option<String>,
}
