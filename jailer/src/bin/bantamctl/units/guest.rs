//! The unit of a guest, `bantam@NAME.service`: it starts the guest with the host, restarts it if its monitor fails, and
//! keeps its log.

use crate::units::systemctl::{self, PATIENCE};
use jailer::error::Error;
use jailer::undo::Undo;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

/// The unit file.
const TEMPLATE: &str = "bantam@.service";
/// Time between two looks at a unit's state.
const INTERVAL: std::time::Duration = std::time::Duration::from_millis(50);

/// Returns the unit of the guest `name`.
fn unit(name: &str) -> String {
    format!("bantam@{name}.service")
}

fn link(name: &str) -> PathBuf {
    systemctl::link("multi-user.target", &unit(name))
}

/// Returns whether the guest `name` starts with the host.
pub fn is_enabled(name: &str) -> bool {
    link(name).symlink_metadata().is_ok()
}

/// Enables the start of the guest `name` at boot.
pub fn enable(name: &str, undo: &mut Undo) -> Result<(), Error> {
    systemctl::enable(&unit(name), TEMPLATE, &link(name), undo)
}

/// Disables the start of the guest `name` at boot.
pub fn disable(name: &str) -> Result<(), Error> {
    systemctl::disable(&unit(name), &link(name))
}

/// Starts the unit of the guest `name`.
pub fn start(name: &str) -> Result<(), Error> {
    systemctl::need(TEMPLATE)?;
    let started = systemctl::run(&["start", &unit(name)]);
    started
        .map(drop)
        .map_err(|e| Error::step(format!("start {name}; {}", journal(name)))(io::Error::other(e)))
}

/// Asks systemd to stop the unit of the guest `name`, so that it does not restart the guest; does not wait.
pub fn stop_without_waiting(name: &str) -> Result<(), Error> {
    systemctl::run(&["stop", &unit(name), "--no-block"]).map(drop)
}

/// Returns whether the unit of the guest `name` is active.
pub fn is_active(name: &str) -> bool {
    systemctl::is_running() && systemctl::run(&["is-active", &unit(name)]).is_ok()
}

/// Waits until systemd has finished with the guest `name`, which has ended. Its ExecStopPost removes what the guest
/// left. Returns `false` if systemd had nothing to do with the guest.
///
/// # Errors
/// [`Error`], if it takes too long.
pub fn settle(name: &str) -> Result<bool, Error> {
    if !systemctl::is_running() {
        return Ok(false);
    }
    let started = Instant::now();
    for round in 0.. {
        let state = systemctl::run(&["show", &unit(name), "--property=ActiveState", "--value"])?;
        match state.trim() {
            // systemd may not have noticed yet that the guest has ended.
            "active" | "deactivating" => {}
            // A guest whose monitor failed is being started again.
            "activating" => return Ok(true),
            _ => return Ok(round > 0),
        }
        if started.elapsed() > PATIENCE {
            break;
        }
        std::thread::sleep(INTERVAL);
    }
    let step = format!("wait for systemd to stop {}; {}", unit(name), journal(name));
    Err(Error::step(step)(io::Error::from(io::ErrorKind::TimedOut)))
}

/// Returns the command that shows the guest's log.
pub fn journal_command(name: &str) -> String {
    format!("journalctl -u {}", unit(name))
}

/// Returns where the guest's log is, for messages.
pub fn journal(name: &str) -> String {
    format!("see `{}`", journal_command(name))
}
