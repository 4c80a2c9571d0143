//! The description of a snapshot from its state, as text and as JSON.

use super::contents::{MAX_CHAIN, Snapshot};
use super::error::SnapshotError;
use super::format::{self, FormatError, Header};
use super::links::{self, base_path, read_state};
use crate::machine::memory::page::PAGE;
use crate::process::messages;
use humantime::format_rfc3339_seconds;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A base of the snapshot.
enum Below {
    /// A base that was found.
    Found(PathBuf, Box<Snapshot>),
    /// A base that cannot be used, and the reason.
    Missing(PathBuf, String),
}

/// The description of a snapshot, without its memory.
pub struct Info {
    snapshot: Snapshot,
    version: u32,
    /// The bases, the nearest first.
    below: Vec<Below>,
}

impl Info {
    /// Reads the snapshot with the state file `path`.
    ///
    /// # Errors
    /// [`SnapshotError`].
    pub fn read(path: &Path) -> Result<Self, SnapshotError> {
        let (snapshot, _, header) = read_state(path)?;
        let mut below = Vec::new();
        let (mut next, mut above) = (snapshot.memory.base.clone(), path.to_owned());
        while let Some(base) = next.filter(|_| below.len() < MAX_CHAIN) {
            let place = base_path(&above, &base.snapshot_path);
            match read_state(&place) {
                Ok((found, _, _)) if found.id == base.id => {
                    next = found.memory.base.clone();
                    above.clone_from(&place);
                    below.push(Below::Found(place, Box::new(found)));
                }
                Ok((found, _, _)) => {
                    let why = format!("it is snapshot {}, not {}", found.id, base.id);
                    below.push(Below::Missing(place, why));
                    break;
                }
                Err(e) => {
                    let why = messages::chain(&e);
                    below.push(Below::Missing(place, why));
                    break;
                }
            }
        }
        Ok(Self {
            snapshot,
            version: header.version,
            below,
        })
    }

    /// Returns the description as text for users.
    pub fn text(&self) -> String {
        let Self {
            snapshot, version, ..
        } = self;
        let machine = &snapshot.config.machine_config;
        let devices = match self.devices().join(", ") {
            none if none.is_empty() => "none".into(),
            some => some,
        };
        let mut text = format!(
            "snapshot {}\n  saved    {}, by version {}, format {}\n  guest    {} {}, {} MiB of memory\n  devices  {devices}\n  written  {}\n",
            snapshot.id,
            saved_at(snapshot),
            snapshot.written_by,
            format::version_text(*version),
            machine.vcpu_count,
            match machine.vcpu_count {
                1 => "vCPU",
                _ => "vCPUs",
            },
            machine.mem_size_mib,
            written(snapshot),
        );
        for below in &self.below {
            let _ = match below {
                Below::Found(path, base) => write!(
                    text,
                    "  base     {} of {}, {}\n           {}\n",
                    base.id,
                    saved_at(base),
                    written(base),
                    path.display()
                ),
                Below::Missing(path, why) => {
                    writeln!(
                        text,
                        "  base     {}, which is missing: {why}",
                        path.display()
                    )
                }
            };
        }
        // The file may contain control sequences for the terminal.
        let harmless = |c: char| match c.is_control() && c != '\n' {
            true => '\u{fffd}',
            false => c,
        };
        text.chars().map(harmless).collect()
    }

    /// Returns the description for programs.
    pub fn json(&self) -> Value {
        let below = self.below.iter().map(|below| match below {
            Below::Found(path, base) => json!({
                "id": base.id, "snapshot_path": path, "saved_at": saved_at(base),
                "written_bytes": base.memory.written,
            }),
            Below::Missing(path, why) => json!({"snapshot_path": path, "lacking": why}),
        });
        let machine = &self.snapshot.config.machine_config;
        json!({
            "id": self.snapshot.id,
            "format": format::version_text(self.version),
            "written_by": self.snapshot.written_by,
            "saved_at": saved_at(&self.snapshot),
            "vcpu_count": machine.vcpu_count,
            "mem_size_mib": machine.mem_size_mib,
            "devices": self.devices(),
            "written_bytes": self.snapshot.memory.written,
            "chain": below.collect::<Vec<_>>(),
        })
    }

    fn devices(&self) -> Vec<&str> {
        let devices = self.snapshot.machine.devices.iter();
        devices.map(|device| device.name.as_str()).collect()
    }
}

fn saved_at(snapshot: &Snapshot) -> String {
    let since = Duration::from_nanos(snapshot.machine.saved_at);
    format_rfc3339_seconds(SystemTime::UNIX_EPOCH + since).to_string()
}

fn written(snapshot: &Snapshot) -> String {
    let bytes = snapshot.memory.written;
    let kind = match snapshot.memory.base {
        Some(_) => "diff",
        None => "full",
    };
    format!("{kind}, {} pages ({} KiB)", bytes / PAGE, bytes >> 10)
}

/// Returns the format version of the file `path`, even if it is later than this program's.
///
/// # Errors
/// [`SnapshotError`]: it is not a state file.
pub fn describe(path: &Path) -> Result<String, SnapshotError> {
    let file = links::open(path)?;
    let version = match Header::read(&file) {
        Ok(header) => header.version,
        Err(FormatError::Version(version)) if version > format::VERSION => version,
        Err(source) => {
            let path = path.into();
            return Err(SnapshotError::Format { path, source });
        }
    };
    Ok(format::version_text(version))
}
