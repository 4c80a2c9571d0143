//! Runs `systemctl`, and names the directories of unit files.

use jailer::error::Error;
use jailer::sys::tool::{self, Tool};
use jailer::undo::Undo;
use resources::Problem;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Time limit for systemd to start or stop a unit.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// Directory of the administrator's units.
pub const DIRECTORY: &str = "/etc/systemd/system";

/// Directories in which systemd looks for unit files (systemd.unit(5)).
const DIRECTORIES: [&str; 5] = [
    DIRECTORY,
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Returns whether systemd runs this host (sd_booted(3)), and so its guests.
pub fn is_running() -> bool {
    Path::new("/run/systemd/system").exists() && tool::find("systemctl").is_some()
}

/// Checks that the unit file `file` is installed.
///
/// # Errors
/// [`Error::Problems`], naming the file and how to install it.
pub fn need(file: &str) -> Result<(), Error> {
    let mut directories = DIRECTORIES.iter();
    if directories.any(|directory| Path::new(directory).join(file).exists()) {
        return Ok(());
    }
    let message = format!(
        "is not installed: install the package `bantam`, or copy resources/systemd/{file} to {DIRECTORY} and run \
         `systemctl daemon-reload`"
    );
    Err(Error::Problems(vec![Problem::new(file, message)]))
}

/// Runs `systemctl WORDS`; returns its output.
pub fn run(words: &[&str]) -> Result<String, Error> {
    let tool = Tool::new("systemctl", "systemd")?.limit(PATIENCE);
    tool.args(words).run_to_end()
}

/// Enables `unit`, whose unit file is `file` and which the link `link` shows to be enabled. A failed command disables
/// it again.
pub fn enable(unit: &str, file: &str, link: &Path, undo: &mut Undo) -> Result<(), Error> {
    need(file)?;
    if link.symlink_metadata().is_ok() {
        return Ok(());
    }
    run(&["enable", "--quiet", unit])?;
    let unit = unit.to_owned();
    undo.made(format!("the start of {unit} at boot"), move || {
        let disabled = run(&["disable", "--quiet", &unit]);
        disabled.map(drop).map_err(std::io::Error::other)
    })
}

/// Returns the link by which `unit` is enabled for `target`.
pub fn link(target: &str, unit: &str) -> PathBuf {
    Path::new(DIRECTORY)
        .join(format!("{target}.wants"))
        .join(unit)
}

/// Disables `unit`, if the link `link` says that it is enabled.
pub fn disable(unit: &str, link: &Path) -> Result<(), Error> {
    if link.symlink_metadata().is_err() {
        return Ok(());
    }
    run(&["disable", "--quiet", unit]).map(drop)
}

/// Makes systemd read its files again, if it runs.
pub fn reload() {
    if is_running()
        && let Err(e) = run(&["daemon-reload"])
    {
        jailer::error::warn(&jailer::error::chain(&e));
    }
}
