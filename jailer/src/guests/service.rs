//! Guests under systemd: a template unit, `bantam@NAME`, which restarts, logs and starts them with the
//! host. Where systemd does not run, guests are started without it.

use crate::error::Error;
use crate::tool::{self, Tool};
use crate::undo::Undo;
use crate::units;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const TEMPLATE: &str = include_str!("../../../resources/systemd/bantam@.service");
/// How long systemd may take to start or stop a guest.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at what it has come to.
const INTERVAL: Duration = Duration::from_millis(50);

/// The unit of the guest `name`.
pub fn unit(name: &str) -> String {
    format!("bantam@{name}.service")
}

fn link(name: &str) -> PathBuf {
    units::directory()
        .join("multi-user.target.wants")
        .join(unit(name))
}

/// Whether systemd runs this host, and so its guests.
pub fn is_here() -> bool {
    units::systemd_runs() && tool::find("systemctl").is_some()
}

/// Whether the guest `name` starts with the host.
pub fn is_enabled(name: &str) -> bool {
    link(name).symlink_metadata().is_ok()
}

/// Installs the template.
///
/// # Errors
/// [`Error`], naming the file.
pub fn install(undo: &mut Undo) -> Result<(), Error> {
    units::install("bantam@.service", TEMPLATE, undo)
}

/// Has the guest `name` start with the host.
///
/// # Errors
/// [`Error`], naming the file.
pub fn enable(name: &str, undo: &mut Undo) -> Result<(), Error> {
    install(undo)?;
    units::lay(&link(name), "../bantam@.service", undo)?;
    units::reload();
    Ok(())
}

/// Has the guest `name` start with the host no longer.
///
/// # Errors
/// [`Error`], naming the file.
pub fn disable(name: &str) -> Result<(), Error> {
    units::remove(&link(name))?;
    units::reload();
    Ok(())
}

/// Whether systemd has the guest `name` in hand.
pub fn has(name: &str) -> bool {
    let state = ask(name, &["is-active"]);
    is_here() && state.is_ok()
}

/// Tells systemd to do `words` with the guest's unit.
///
/// # Errors
/// What systemctl says.
pub fn ask(name: &str, words: &[&str]) -> Result<String, Error> {
    let tool = Tool::new("systemctl", "systemd")?.limit(PATIENCE);
    tool.args(words).args([unit(name)]).run_to_end()
}

/// Waits until systemd has done with the guest `name`, which has ended: with its ExecStopPost, that is, which removes
/// what the guest left. `false` if systemd had nothing to do with it.
///
/// # Errors
/// What systemctl says, or that it takes too long.
pub fn settle(name: &str) -> Result<bool, Error> {
    if !is_here() {
        return Ok(false);
    }
    let started = Instant::now();
    for round in 0.. {
        let state = ask(name, &["show", "--property=ActiveState", "--value"])?;
        match state.trim() {
            // It may not know yet that the guest has ended.
            "active" | "deactivating" => {}
            // A guest that ended badly is started again.
            "activating" => return Ok(true),
            _ => return Ok(round > 0),
        }
        if started.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(INTERVAL);
    }
    let message = format!("it has not done with it; {}", journal(name));
    let step = format!("wait until systemd has done with {}", unit(name));
    Err(Error::step(step)(io::Error::other(message)))
}

/// Where what the guest said is, for messages.
pub fn journal(name: &str) -> String {
    format!(
        "`journalctl -u {}` tells more",
        Path::new(&unit(name)).display()
    )
}
