//! Functions that several commands use: the check for root, the undo list, JSON output.

use jailer::confine::privileges;
use jailer::error::Error;
use jailer::sys::signals::{self, Blocked};
use jailer::undo::Undo;
use resources::Problem;
use std::io;

/// Changes something on the host. If `action` fails or is interrupted, what it recorded is undone.
pub fn change(action: impl FnOnce(&mut Undo) -> Result<(), Error>) -> Result<(), Error> {
    // Access to an image is tried as the guest's user, who must not have root's groups.
    privileges::drop_groups().map_err(Error::step("leave the groups of the superuser"))?;
    let blocked = Blocked::new()?;
    let mut undo = Undo::new(signals::check);
    let done = action(&mut undo);
    if done.is_ok() {
        undo.keep();
    } else {
        drop(undo);
    }
    // A pending signal ends this process here, so that its parent sees the signal.
    drop(blocked);
    done
}

/// Checks that this process has root's rights.
pub fn need_root() -> Result<(), Error> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    let message = "must be run by root for this, e.g. with sudo";
    Err(Error::Problems(vec![Problem::new("bantamctl", message)]))
}

/// Prints `value` as JSON.
pub fn print_json(value: &impl serde::Serialize) -> Result<(), Error> {
    let text = serde_json::to_string_pretty(value);
    let text = text.map_err(|e| Error::step("write JSON")(io::Error::other(e)))?;
    println!("{text}");
    Ok(())
}
