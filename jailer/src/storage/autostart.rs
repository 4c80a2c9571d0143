//! Pools that start with the host, by systemd: a template unit, a file with what depends on the pool's type, and
//! links, written as `systemctl enable` would. systemd need not run.

use crate::error::Error;
use crate::storage::directory;
use crate::undo::Undo;
use crate::units;
use resources::{PoolDefinition, PoolType};
use std::fs;
use std::path::{Path, PathBuf};

const TEMPLATE: &str = include_str!("../../../resources/systemd/bantam-pool@.service");
const TARGET: &str = include_str!("../../../resources/systemd/bantam-pools.target");

fn unit(name: &str) -> String {
    format!("bantam-pool@{name}.service")
}

fn link(name: &str) -> PathBuf {
    units::directory()
        .join("bantam-pools.target.wants")
        .join(unit(name))
}

/// Whether the pool `name` starts with the host.
pub fn is_enabled(name: &str) -> bool {
    link(name).symlink_metadata().is_ok()
}

/// Has the pool start with the host.
///
/// # Errors
/// [`Error`], naming the file.
pub fn enable(definition: &PoolDefinition, undo: &mut Undo) -> Result<(), Error> {
    units::install("bantam-pool@.service", TEMPLATE, undo)?;
    units::install("bantam-pools.target", TARGET, undo)?;
    let name = &definition.name;
    let own = units::directory().join(format!("{}.d", unit(name)));
    units::write(&own, "pool.conf", &drop_in(definition), undo)?;
    units::lay(
        &units::directory().join("multi-user.target.wants/bantam-pools.target"),
        "../bantam-pools.target",
        undo,
    )?;
    units::lay(&link(name), "../bantam-pool@.service", undo)?;
    units::reload();
    Ok(())
}

/// Has the pool start with the host no longer.
///
/// # Errors
/// [`Error`], naming the file.
pub fn disable(name: &str) -> Result<(), Error> {
    let own = units::directory().join(format!("{}.d", unit(name)));
    units::remove(&link(name))?;
    units::remove(&own.join("pool.conf"))?;
    // An administrator's own files may be there.
    let _ = fs::remove_dir(own);
    units::reload();
    Ok(())
}

/// What must be there before the pool can start.
fn drop_in(definition: &PoolDefinition) -> String {
    let needs = match definition.kind {
        PoolType::Dir => {
            let target = directory::target(definition);
            format!("RequiresMountsFor={}\n", units::escaped(&target))
        }
        PoolType::Netfs => {
            "Wants=network-online.target\nAfter=network-online.target nss-lookup.target\n".into()
        }
        PoolType::Logical => "After=local-fs.target lvm2-monitor.service\n".into(),
        PoolType::Disk => {
            let device = definition.source_dev.clone().unwrap_or_default();
            let device = device_unit(&device);
            format!("Wants={device}\nAfter={device}\n")
        }
    };
    format!("# Written by `jailer pool autostart`.\n[Unit]\n{needs}")
}

/// The unit of a device (systemd.unit(5), "String escaping for inclusion in unit names").
fn device_unit(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut name = String::new();
    for (at, byte) in text.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                name.push(char::from(byte))
            }
            _ => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    format!("{name}.device")
}

#[cfg(test)]
#[path = "autostart_test.rs"]
mod autostart_test;
