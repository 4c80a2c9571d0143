//! Pools that start with the host, by systemd: a template unit, a file with what depends on the pool's type, and
//! links, written as `systemctl enable` would. systemd need not run.

use crate::dir::{Dir, ROOT};
use crate::error::Error;
use crate::storage::directory;
use crate::tool::{self, Tool};
use crate::undo::Undo;
use resources::{PoolDefinition, PoolType};
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

const UNITS: &str = "/etc/systemd/system";
const TEMPLATE: &str = include_str!("../../../resources/systemd/bantam-pool@.service");
const TARGET: &str = include_str!("../../../resources/systemd/bantam-pools.target");

fn unit(name: &str) -> String {
    format!("bantam-pool@{name}.service")
}

fn link(name: &str) -> PathBuf {
    Path::new(UNITS)
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
    let jailer = std::env::current_exe().map_err(Error::step("find this program's file"))?;
    let template = TEMPLATE.replace("@JAILER@", &escaped(&jailer));
    let name = &definition.name;
    let dir = open_or_make(Path::new(UNITS), undo)?;
    for (file, text) in [
        ("bantam-pool@.service", template.as_str()),
        ("bantam-pools.target", TARGET),
    ] {
        // One that an administrator changed stays.
        if dir.stat(file).is_err() {
            write(&dir, file, text, undo)?;
        }
    }
    let own = open_or_make(&Path::new(UNITS).join(format!("{}.d", unit(name))), undo)?;
    write(&own, "pool.conf", &drop_in(definition), undo)?;
    lay(
        &Path::new(UNITS).join("multi-user.target.wants/bantam-pools.target"),
        "../bantam-pools.target",
        undo,
    )?;
    lay(&link(name), "../bantam-pool@.service", undo)?;
    reload();
    Ok(())
}

/// Has the pool start with the host no longer.
///
/// # Errors
/// [`Error`], naming the file.
pub fn disable(name: &str) -> Result<(), Error> {
    let own = Path::new(UNITS).join(format!("{}.d", unit(name)));
    let removed = |path: &Path, removed: io::Result<()>| match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(Error::step(format!("remove {}", path.display()))(e))
        }
        _ => Ok(()),
    };
    removed(&link(name), fs::remove_file(link(name)))?;
    let file = own.join("pool.conf");
    removed(&file, fs::remove_file(&file))?;
    // An administrator's own files may be there.
    let _ = fs::remove_dir(own);
    reload();
    Ok(())
}

/// What must be there before the pool can start.
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

/// A path as a word of a unit file: `%` begins a specifier, and `\x20` is a space.
fn escaped(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.replace('%', "%%")
        .replace('\\', "\\\\")
        .replace(' ', "\\x20")
}

fn open_or_make(path: &Path, undo: &mut Undo) -> Result<Dir, Error> {
    let missing: Vec<_> = path.ancestors().take_while(|p| !p.exists()).collect();
    for path in missing.into_iter().rev() {
        let parent = Dir::open(path.parent().unwrap_or(Path::new("/")));
        let parent = parent.map_err(Error::step(format!("make {}", path.display())))?;
        let name = path.file_name().and_then(|name| name.to_str());
        parent.make_dir(undo, name.unwrap_or_default(), 0o755)?;
    }
    Dir::open(path).map_err(Error::step(format!("open {}", path.display())))
}

fn write(dir: &Dir, file: &str, text: &str, undo: &mut Undo) -> Result<(), Error> {
    dir.make_file(undo, file, 0o644, ROOT, |to| {
        to.write_all(text.as_bytes())?;
        to.sync_all()
    })
}

fn lay(link: &Path, to: &str, undo: &mut Undo) -> Result<(), Error> {
    open_or_make(link.parent().unwrap_or(Path::new(UNITS)), undo)?;
    match symlink(to, link) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(Error::step(format!("make the link {}", link.display()))(e)),
        Ok(()) => {
            let path = link.to_owned();
            undo.made(path.display().to_string(), move || fs::remove_file(path))
        }
    }
}

/// Tells systemd, if it runs; at the next boot it reads the files anyway.
fn reload() {
    if Path::new("/run/systemd/system").exists() && tool::find("systemctl").is_some() {
        let told = Tool::new("systemctl", "systemd");
        if let Err(e) = told.and_then(|tool| tool.args(["daemon-reload"]).run_to_end()) {
            crate::error::warn(&crate::error::chain(&e));
        }
    }
}

#[cfg(test)]
#[path = "autostart_test.rs"]
mod autostart_test;
