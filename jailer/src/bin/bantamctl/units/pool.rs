//! The unit of a pool, `bantam-pool@NAME.service`, and a drop-in with what it depends on, which differs by the pool's
//! type.

use crate::units::systemctl;
use jailer::error::Error;
use jailer::storage::pools::directory;
use jailer::sys::dir::{ROOT, absent_is_none};
use jailer::undo::{Undo, directories};
use resources::{PoolDefinition, PoolType};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The unit file.
const TEMPLATE: &str = "bantam-pool@.service";
/// The unit that all pools are ordered before.
const TARGET: &str = "bantam-pools.target";

fn unit(name: &str) -> String {
    format!("bantam-pool@{name}.service")
}

fn link(name: &str) -> PathBuf {
    systemctl::link(TARGET, &unit(name))
}

fn drop_ins(name: &str) -> PathBuf {
    Path::new(systemctl::DIRECTORY).join(format!("{}.d", unit(name)))
}

/// Returns whether the pool `name` starts with the host.
pub fn is_enabled(name: &str) -> bool {
    link(name).symlink_metadata().is_ok()
}

/// Enables the start of the pool at boot.
pub fn enable(definition: &PoolDefinition, undo: &mut Undo) -> Result<(), Error> {
    let name = &definition.name;
    systemctl::need(TEMPLATE)?;
    let directory = directories(&drop_ins(name), 0o755, undo)?;
    directory.make_file(undo, "pool.conf", 0o644, ROOT, |to| {
        to.write_all(drop_in(definition).as_bytes())?;
        to.sync_all()
    })?;
    let all = systemctl::link("multi-user.target", TARGET);
    systemctl::enable(TARGET, TARGET, &all, undo)?;
    systemctl::enable(&unit(name), TEMPLATE, &link(name), undo)?;
    systemctl::reload();
    Ok(())
}

/// Disables the start of the pool at boot.
pub fn disable(name: &str) -> Result<(), Error> {
    systemctl::disable(&unit(name), &link(name))?;
    let file = drop_ins(name).join("pool.conf");
    let removed = absent_is_none(fs::remove_file(&file));
    let removed = removed.map_err(Error::step(format!("remove {}", file.display())))?;
    if removed.is_some() {
        // An administrator may have other files there.
        let _ = fs::remove_dir(drop_ins(name));
        systemctl::reload();
    }
    Ok(())
}

/// Returns the drop-in that names what the pool needs before it can start.
fn drop_in(definition: &PoolDefinition) -> String {
    let needs = match definition.kind {
        PoolType::Dir => {
            let target = directory::target(definition);
            format!("RequiresMountsFor={}\n", escaped(&target))
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
    format!("# Written by `bantamctl pool autostart`.\n[Unit]\n{needs}")
}

/// Returns a path as a word of a unit file: `%` begins a specifier, and `\x20` is a space.
fn escaped(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.replace('%', "%%")
        .replace('\\', "\\\\")
        .replace(' ', "\\x20")
}

/// Returns the unit of a device (systemd.unit(5), "String escaping for inclusion in unit names").
fn device_unit(path: &Path) -> String {
    let text = path.to_string_lossy();
    let mut name = String::new();
    for (at, byte) in text.trim_matches('/').bytes().enumerate() {
        match byte {
            b'/' => name.push('-'),
            b'.' if at == 0 => name.push_str("\\x2e"),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => {
                name.push(char::from(byte));
            }
            _ => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    format!("{name}.device")
}

#[cfg(test)]
#[path = "pool_test.rs"]
mod pool_test;
