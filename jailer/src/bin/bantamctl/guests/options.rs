//! The options of a start, made from a definition.

use crate::guests::definitions;
use crate::guests::guest::Guest;
use jailer::error::Error;
use jailer::jail::options::{DEFAULT_BASE, DEFAULT_LIMITS, Options, Process, exec_name};
use jailer::jail::{cgroup, copies, uids};
use jailer::sys::dir::Owner;
use nix::unistd::Gid;
use resources::Problem;
use std::io;
use std::path::{Path, PathBuf};

/// Returns the monitor that runs a guest whose definition names none: `bantam` beside this program.
pub fn default_monitor() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("bantam"))
}

/// Returns the file of the monitor's messages, if systemd does not keep them.
pub fn messages(name: &str) -> PathBuf {
    Path::new("/var/log/bantam").join(format!("{name}.log"))
}

/// Returns the owner with the user `uid` and the group `gid`, which is the user's number by default.
pub fn owner(uid: u32, gid: Option<u32>) -> Owner {
    let own = uids::owner(uid);
    Owner {
        gid: gid.map_or(own.gid, Gid::from_raw),
        ..own
    }
}

/// Returns the options that start `guest`.
///
/// # Errors
/// [`Error::Problems`], if its definition names no user.
pub fn of(guest: &Guest, process: Process) -> Result<Options, Error> {
    let host = guest.config.host.clone().unwrap_or_default();
    let path = definitions::find(&guest.name);
    let Some(uid) = host.uid else {
        let key = format!("{}: host.uid", path.display());
        let message = "is missing: name the user that the guest's monitor runs as";
        return Err(Error::Problems(vec![Problem::new(key, message)]));
    };
    let owner = owner(uid, host.gid);
    let exec_file = match host.exec_file {
        Some(path) => path,
        None => default_monitor().map_err(Error::step("find this program's file"))?,
    };
    let exec_name = exec_name(&exec_file).map_err(Error::Arguments)?;
    Ok(Options {
        id: guest.name.clone(),
        exec_file,
        owner,
        allot: None,
        base: DEFAULT_BASE.into(),
        base_given: false,
        netns: host.copy_of.is_some().then(|| copies::network(&guest.name)),
        copy_of: host.copy_of,
        config_file: Some(path),
        limits: DEFAULT_LIMITS,
        cgroup: cgroup::Request::default(),
        process: Process {
            messages: process.daemonize.then(|| messages(&guest.name)),
            ..process
        },
        exec_name,
        pass_through: Vec::new(),
    })
}
