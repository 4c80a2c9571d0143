//! The configuration file: reading, parsing, checking.

use crate::drive::check_drives;
use crate::network::check_interfaces;
use crate::null_as_default;
use crate::{BootSource, Drive, MachineConfig, NetworkInterface, Problem, RateLimiter};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

/// Largest configuration file, in bytes: a thousand drives fit, a disk image given by mistake does
/// not fill memory.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// Sections that compatible clients write and this version does not serve. They change what the
/// guest is, so that leaving them out silently would start another machine than was asked for.
const UNSUPPORTED: [&str; 6] = [
    "balloon",
    "cpu-config",
    "memory-hotplug",
    "mmds-config",
    "pmem",
    "vsock",
];

/// Why a configuration cannot be used. Each text names the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is larger than [`MAX_CONFIG_BYTES`].
    #[error("{} is larger than {MAX_CONFIG_BYTES} bytes: is it the configuration file?", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not the JSON we know.
    #[error("{}: {key}: {message}", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The key whose value is wrong, `(file)` if the JSON itself is.
        key: String,
        /// What is wrong, with line and column.
        message: String,
    },
    /// Keys whose values cannot be used.
    #[error("{}:{}", path.display(), list(problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// All of them.
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

/// The `entropy` section.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entropy {
    /// Limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limiter: Option<RateLimiter>,
}

/// A guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct VmConfig {
    /// What it boots.
    pub boot_source: BootSource,
    /// Its disks, in the order in which the guest names them.
    pub drives: Vec<Drive>,
    /// Its processors and memory.
    #[serde(default, deserialize_with = "null_as_default")]
    pub machine_config: MachineConfig,
    /// Its network.
    #[serde(default, deserialize_with = "null_as_default")]
    pub network_interfaces: Vec<NetworkInterface>,
    /// Its source of randomness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entropy: Option<Entropy>,
}

/// A configuration that was read and checked.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The guest.
    pub config: VmConfig,
    /// What was ignored, a line each, naming the file and the key.
    pub warnings: Vec<String>,
}

impl VmConfig {
    /// Reads and checks `path`.
    ///
    /// # Errors
    /// Every text of [`ConfigError`] names `path` and, where there is one, the key.
    pub fn from_file(path: &Path) -> Result<Loaded, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.into(),
            source,
        };
        let mut text = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut text))
            .map_err(read)?;
        if text.len() as u64 > MAX_CONFIG_BYTES {
            return Err(ConfigError::TooLarge { path: path.into() });
        }
        Self::from_json(path, &text)
    }

    /// Parses and checks `text`, naming `path` in what it says.
    ///
    /// # Errors
    /// As [`Self::from_file`].
    pub fn from_json(path: &Path, text: &[u8]) -> Result<Loaded, ConfigError> {
        let mut json = serde_json::Deserializer::from_slice(text);
        let config: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| parse_error(path, e.path().to_string(), e.inner()))?;
        json.end().map_err(|e| parse_error(path, ".".into(), &e))?;

        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        // It parsed above, so it parses as a map of anything.
        let keys: BTreeMap<String, Option<IgnoredAny>> =
            serde_json::from_slice(text).unwrap_or_default();
        for (key, value) in keys {
            match key.as_str() {
                // Clients write null for a section they do not use.
                _ if value.is_none() => {}
                "boot-source" | "drives" | "machine-config" | "network-interfaces" | "entropy" => {}
                section if UNSUPPORTED.contains(&section) => problems.push(Problem::new(
                    section,
                    "this section is not supported by this version: remove it",
                )),
                other => warnings.push(format!(
                    "{}: {other}: unknown section, ignored",
                    path.display()
                )),
            }
        }
        problems.extend(config.problems());
        if problems.is_empty() {
            Ok(Loaded { config, warnings })
        } else {
            Err(ConfigError::Invalid {
                path: path.into(),
                problems,
            })
        }
    }

    /// Everything wrong with the values, as far as it can be told without the host.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.boot_source.check(&mut problems);
        self.machine_config.check(&mut problems);
        check_drives(&self.drives, &mut problems);
        check_interfaces(&self.network_interfaces, &mut problems);
        problems
    }
}

fn parse_error(path: &Path, key: String, error: &serde_json::Error) -> ConfigError {
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

#[cfg(test)]
#[path = "config_file_test.rs"]
mod config_file_test;
