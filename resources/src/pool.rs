//! Storage pool definitions, as `bantamctl pool define` writes them to `/etc/bantam/pools/NAME.json`, and the names
//! that pools and volumes may have. The terms are those of libvirt. Nothing here accesses the host.

use crate::check::error::{ConfigError, parse_error};
use crate::check::files::read_bounded;
use crate::check::problem::Problem;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Component, Path, PathBuf};

/// Longest name of a pool in bytes.
const MAX_POOL_NAME: usize = 64;
/// Longest name of a volume in bytes. A temporary suffix still fits a file name.
const MAX_VOLUME_NAME: usize = 200;
/// Largest definition in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// The kind of storage behind a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PoolType {
    /// A directory.
    Dir,
    /// A directory that an NFS server exports.
    Netfs,
    /// An LVM volume group.
    Logical,
    /// A whole disk with a GPT and a partition per volume.
    Disk,
}

impl PoolType {
    /// Returns the type called `name`.
    pub fn named(name: &str) -> Option<Self> {
        let types = [Self::Dir, Self::Netfs, Self::Logical, Self::Disk];
        types.into_iter().find(|kind| kind.name() == name)
    }

    /// Returns the name of the type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dir => "dir",
            Self::Netfs => "netfs",
            Self::Logical => "logical",
            Self::Disk => "disk",
        }
    }
}

/// The definition of a pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolDefinition {
    /// Name of the pool and of its file.
    pub name: String,
    /// Type of the pool.
    #[serde(rename = "type")]
    pub kind: PoolType,
    /// netfs: host name or address of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_host: Option<String>,
    /// netfs: the exported directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_path: Option<PathBuf>,
    /// disk: path of the device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_dev: Option<PathBuf>,
    /// logical: name of the volume group, if it differs from the pool's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_name: Option<String>,
    /// netfs: mount options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_options: Option<String>,
    /// dir, netfs: directory of the volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<PathBuf>,
}

impl PoolDefinition {
    /// Reads and checks the file `path`, which must define the pool `name`.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file.
    pub fn from_file(path: &Path, name: &str) -> Result<Self, ConfigError> {
        let text = read_bounded(path, MAX_BYTES).map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => ConfigError::TooLarge { path: path.into() },
            _ => ConfigError::Read {
                path: path.into(),
                source,
            },
        })?;
        let mut json = serde_json::Deserializer::from_slice(&text);
        let definition: Self = serde_path_to_error::deserialize(&mut json)
            .map_err(|e| parse_error(path, e.path().to_string(), e.inner()))?;
        json.end().map_err(|e| parse_error(path, ".".into(), &e))?;
        let mut problems = definition.problems();
        if definition.name != name {
            let message = format!("must be `{name}`, like the file name");
            problems.push(Problem::new("name", message));
        }
        match problems.is_empty() {
            true => Ok(definition),
            false => Err(ConfigError::Invalid {
                path: path.into(),
                problems,
            }),
        }
    }

    /// Returns all problems that can be found without the host.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if let Err(message) = check_pool_name(&self.name) {
            problems.push(Problem::new("name", message));
        }
        self.check_keys(&mut problems);
        let mut wrong = |key: &str, message: String| problems.push(Problem::new(key, message));
        for (key, path) in [
            ("source_path", &self.source_path),
            ("source_dev", &self.source_dev),
            ("target", &self.target),
        ] {
            if let Some(Err(message)) = path.as_deref().map(check_path) {
                wrong(key, message);
            }
        }
        let plain = |text: &str, more: &str| {
            !text.is_empty()
                && !text.starts_with('-')
                && text
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        if let Some(host) = self.source_host.as_ref().filter(|h| !plain(h, ".-_:%")) {
            wrong(
                "source_host",
                format!("`{host}` is not a host name or address"),
            );
        }
        if let Some(group) = self.source_name.as_ref().filter(|g| !plain(g, ".-_+")) {
            wrong(
                "source_name",
                format!("`{group}` is not a volume group name"),
            );
        }
        if let Some(options) = self
            .source_options
            .as_ref()
            .filter(|o| !plain(o, ",=._-:/+[]"))
        {
            wrong(
                "source_options",
                format!("`{options}` are not mount options: write e.g. vers=4.2,hard"),
            );
        }
        problems
    }

    /// Reports missing keys, and keys that belong to another type.
    fn check_keys(&self, problems: &mut Vec<Problem>) {
        use PoolType::{Dir, Disk, Logical, Netfs};
        let kind = self.kind;
        for (key, given, of, needed) in [
            (
                "source_host",
                self.source_host.is_some(),
                &[Netfs][..],
                true,
            ),
            ("source_path", self.source_path.is_some(), &[Netfs], true),
            ("source_dev", self.source_dev.is_some(), &[Disk], true),
            ("source_name", self.source_name.is_some(), &[Logical], false),
            (
                "source_options",
                self.source_options.is_some(),
                &[Netfs],
                false,
            ),
            ("target", self.target.is_some(), &[Dir, Netfs], false),
        ] {
            let kind_name = kind.name();
            if given && !of.contains(&kind) {
                let message = format!("does not belong to a `{kind_name}` pool: remove it");
                problems.push(Problem::new(key, message));
            } else if needed && !given && of.contains(&kind) {
                let message = format!("is missing: a `{kind_name}` pool needs it");
                problems.push(Problem::new(key, message));
            }
        }
    }
}

fn check_path(path: &Path) -> Result<(), String> {
    let text = path.to_str().unwrap_or("\n");
    let shown = path.display();
    if text.chars().any(char::is_control) {
        Err(format!("`{}` is not a path", text.escape_debug()))
    } else if !path.is_absolute() || path.components().any(|c| c == Component::ParentDir) {
        Err(format!("`{shown}` must be an absolute path without `..`"))
    } else {
        Ok(())
    }
}

/// Checks the name of a pool.
///
/// # Errors
/// A message that names the rule.
pub fn check_pool_name(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty()
        || name.len() > MAX_POOL_NAME
        || name.starts_with(['.', '-'])
        || !name.chars().all(plain)
    {
        return Err(format!(
            "`{}` cannot name a pool: use 1 to {MAX_POOL_NAME} letters, digits, `.`, `_` and `-`, the first \
             neither `.` nor `-`",
            short(name)
        ));
    }
    Ok(())
}

/// Checks the name of a volume. Volume groups and partition tables allow less.
///
/// # Errors
/// A message that names the rule.
pub fn check_volume_name(name: &str) -> Result<(), String> {
    if name.is_empty()
        || name.len() > MAX_VOLUME_NAME
        || name.starts_with(['.', '-'])
        || name.contains('/')
        || name.chars().any(char::is_control)
    {
        return Err(format!(
            "`{}` cannot name a volume: use 1 to {MAX_VOLUME_NAME} bytes without `/`, the first neither `.` \
             nor `-`",
            short(name)
        ));
    }
    Ok(())
}

/// Shortens a name for a message.
fn short(name: &str) -> String {
    let mut text: String = name.chars().take(80).flat_map(char::escape_debug).collect();
    if name.chars().nth(80).is_some() {
        text.push_str("...");
    }
    text
}

#[cfg(test)]
#[path = "pool_test.rs"]
mod pool_test;
