//! A start in three phases. [`check`] reports all problems before anything is made. [`make`] makes everything, and
//! records each step in [`Undo`], so that a failed start leaves nothing behind. [`become_monitor`] drops the privileges
//! and executes the monitor.

use crate::confine::{landlock, namespaces, privileges, terminal};
use crate::error::Error;
use crate::jail::check::{self, Plan};
use crate::jail::chroot::{Jail, PidFile};
use crate::jail::detach::{self, Detached};
use crate::jail::monitor::{self, Monitor, Started};
use crate::jail::options::Options;
use crate::jail::{cgroup, clean, config, guardian, uids};
use crate::network;
use crate::sys::dir::Dir;
use crate::sys::signals::{self, Blocked};
use crate::undo::Undo;
use crate::undo::record::Record;
use std::convert::Infallible;
use std::os::fd::OwnedFd;

/// Starts a guest. Returns only if it fails: else this process, or a child of it, is the monitor.
pub fn start(mut options: Options, started: Started) -> Result<Infallible, Error> {
    monitor::close_inherited()?;
    let lifeline = options
        .process
        .lifeline
        .then(monitor::lifeline)
        .transpose()?;
    let mut user = None;
    if let Some(range) = options.allot {
        let (owner, claim) = range.allot(&options.id)?;
        (options.owner, user) = (owner, Some(claim));
    } else if nix::unistd::geteuid().is_root() {
        user = Some(uids::share(options.owner.uid.as_raw())?);
    }
    let plan = check::check(&options)?;
    let blocked = Blocked::new()?;
    let mut undo = Undo::new(signals::check);
    let Made {
        monitor,
        pid_file,
        detached,
        proc,
    } = make(&options, started, plan, lifeline, &mut undo)?;
    let monitor = monitor.with_user(user);
    let guarded = proc.is_some();
    let last_steps = move || become_monitor(&options, &monitor, proc.as_ref(), blocked);
    if let Some(detached) = detached {
        return detached.run(undo, pid_file, last_steps);
    }
    pid_file.write(std::process::id())?;
    match guarded {
        true => detach::run_guarded(undo, last_steps),
        false => guardian::run_last(undo, last_steps),
    }
}

/// The result of [`make`]: the process is in the jail.
#[derive(Debug)]
struct Made {
    monitor: Monitor,
    pid_file: PidFile,
    detached: Option<Detached>,
    /// /proc, if the monitor gets a user namespace.
    proc: Option<Dir>,
}

/// Makes everything on the host, and enters the jail.
fn make(
    options: &Options,
    started: Started,
    plan: Plan,
    lifeline: Option<OwnedFd>,
    undo: &mut Undo,
) -> Result<Made, Error> {
    let jail = Jail::claim(options, undo)?;
    let mut record = Record::open(&options.base, &options.exec_name, &options.id)?;
    let kept: Vec<&str> = plan.guest.iter().flat_map(check::Guest::bridges).collect();
    record.clear(|made| clean::remove_recorded(made, &kept))?;
    undo.keep_record(record);
    let pid_file = jail.add_monitor_files(&plan.exec, &options.exec_name, undo)?;
    let mut detached = Detached::new(options.process.clone())?;
    let proc = options.process.new_user_ns.then(namespaces::proc);
    let proc = proc.transpose().map_err(Error::step("open /proc"))?;
    let groups = plan.cgroups.directories();
    undo.announce(|made| {
        made.cgroups = groups;
        made.netns = options.netns.clone().filter(|_| plan.guest.is_some());
    })?;
    let monitor = match plan.guest {
        None => {
            enter_groups(&plan.cgroups, &mut detached, undo)?;
            let lock = jail.enter(None, plan.home, undo)?;
            Monitor::new(options, started, lock, Vec::new(), Vec::new())
        }
        Some(guest) => {
            let files = guest.files.make(options.owner, undo)?;
            let found = match &options.copy_of {
                // The copy's own image is empty yet.
                Some(of) => jail
                    .link_boot_files(&guest.config, of, undo)
                    .map(|()| None)?,
                None => jail.add_boot_files(&guest.config, &files, undo)?,
            };
            let own = options.copy_of.is_some();
            let mut inherited =
                network::make(&options.id, guest.interfaces, options.owner.uid, own, undo)?;
            let numbers = monitor::numbers(&inherited);
            let jailed = config::jailed(guest.config.clone(), &numbers, found.as_ref());
            jail.add_guest_files(&jailed, guest.seed.as_deref(), undo)?;
            enter_groups(&plan.cgroups, &mut detached, undo)?;
            let lock = jail.enter(Some((&guest.config, &files)), plan.home, undo)?;
            let arguments = match own {
                true => monitor::waiting(&guest.config, &numbers, lifeline.as_ref()),
                false => monitor::configured(),
            };
            inherited.extend(lifeline);
            Monitor::new(options, started, lock, inherited, arguments)
        }
    };
    Ok(Made {
        monitor: monitor.with_handover(undo.handover()?),
        pid_file,
        detached,
        proc,
    })
}

/// Enters the control groups, or has the future process of the monitor enter them.
fn enter_groups(
    groups: &cgroup::Plan,
    detached: &mut Option<Detached>,
    undo: &mut Undo,
) -> Result<(), Error> {
    match detached.take() {
        None => groups.enter(undo),
        Some(process) => {
            *detached = Some(process.in_group(groups.enter_for_child(undo)?));
            Ok(())
        }
    }
}

/// Drops the privileges and executes the monitor.
fn become_monitor(
    options: &Options,
    monitor: &Monitor,
    user_ns: Option<&Dir>,
    blocked: Blocked,
) -> Result<Infallible, Error> {
    let (uid, gid) = (options.owner.uid, options.owner.gid);
    options
        .limits
        .apply()
        .map_err(Error::step("set --resource-limit"))?;
    privileges::drop_all(options.owner, user_ns)
        .map_err(Error::step(format!("become user {uid} and group {gid}")))?;
    landlock::restrict(&monitor.path())
        .map_err(Error::step("restrict the process with Landlock"))?;
    terminal::protect().map_err(Error::step("protect the terminal"))?;
    signals::restore_pipe();
    drop(blocked);
    monitor.execute()
}

#[cfg(test)]
#[path = "start_test.rs"]
mod start_test;
