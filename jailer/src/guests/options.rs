//! How a guest that is defined is started: as by flags, from its definition.

use super::{Guest, copies, definitions};
use crate::cgroup;
use crate::cli::{DEFAULT_BASE, DEFAULT_LIMITS, Options, Process, exec_name};
use crate::dir::Owner;
use crate::error::Error;
use crate::uids;
use nix::unistd::Gid;
use resources::{Problem, VmConfig};
use std::io;
use std::path::{Path, PathBuf};

/// Where the VMM is if the definition does not say.
///
/// # Errors
/// This program's own file cannot be found.
pub fn default_monitor() -> io::Result<PathBuf> {
    Ok(std::env::current_exe()?.with_file_name("bantam"))
}

/// Where the messages of the guest `name` are if systemd does not keep them.
pub fn messages(name: &str) -> PathBuf {
    Path::new("/var/log/bantam").join(format!("{name}.log"))
}

/// The directory of jails, and the name of the VMM.
pub fn place(config: &VmConfig) -> (&'static Path, String) {
    let named = config
        .host
        .as_ref()
        .and_then(|host| host.exec_file.as_ref());
    let name = named.and_then(|path| exec_name(path).ok());
    (Path::new(DEFAULT_BASE), name.unwrap_or("bantam".into()))
}

/// The user `uid`, in the group `gid` or that of the same number.
pub fn owner(uid: u32, gid: Option<u32>) -> Owner {
    let own = uids::owner(uid);
    Owner {
        gid: gid.map_or(own.gid, Gid::from_raw),
        ..own
    }
}

/// What starts `guest`.
///
/// # Errors
/// [`Error::Problems`]: its definition has no user.
pub fn of(guest: &Guest, process: Process) -> Result<Options, Error> {
    let host = guest.config.host.clone().unwrap_or_default();
    let path = definitions::find(&guest.name);
    let Some(uid) = host.uid else {
        let key = format!("{}: host.uid", path.display());
        let message = "is missing: name the user that the guest's VMM runs as";
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
        cgroup: cgroup::Wish::default(),
        process: Process {
            messages: process.daemonize.then(|| messages(&guest.name)),
            ..process
        },
        exec_name,
        pass_through: Vec::new(),
    })
}
