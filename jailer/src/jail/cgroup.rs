//! Control groups: `HIERARCHY/PARENT/ID` is made for the monitor, and entered before it runs.
//!
//! Version 2 has one hierarchy, and version 1 (Linux, Documentation/admin-guide/cgroup-v1) one for each set of
//! controllers. Without --cgroup-version, version 1 is used for a controller that it has, as Firecracker's jailer does,
//! else version 2.

use crate::error::Error;
use crate::sys::dir::Dir;
use crate::sys::mounts::unescape;
use crate::undo::Undo;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use resources::Problem;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

/// The kernel's list of mounts.
const MOUNTS: &str = "/proc/mounts";
/// The groups of this process.
const OWN: &str = "/proc/self/cgroup";
/// The processes of a group, in both versions; writing `0` adds the writer.
const PROCS: &str = "cgroup.procs";
/// The threads of a group, in version 1.
const TASKS: &str = "tasks";
/// Time limit for an ended process to leave its group.
const PATIENCE: Duration = Duration::from_secs(2);
/// Files of version 1 that are empty in a new group, which therefore accepts no process (cpusets.rst).
const INHERITED: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
/// Number of attempts to create a group whose parent another jailer may remove.
const ATTEMPTS: usize = 16;

/// The version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each set of controllers.
    One,
    /// One hierarchy.
    Two,
}

/// The control groups that the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    version: Option<Version>,
    parent: PathBuf,
    /// Files and the values to write to them.
    values: Vec<(String, String)>,
}

impl Request {
    /// Reads the values of `--cgroup`, `--cgroup-version` and `--parent-cgroup`; the default parent is `name`.
    pub fn parse(
        values: &[String],
        version: Option<&str>,
        parent: Option<&str>,
        name: &str,
    ) -> Result<Self, String> {
        let version = match version {
            None => None,
            Some("1") => Some(Version::One),
            Some("2") => Some(Version::Two),
            Some(other) => return Err(format!("--cgroup-version {other}: write 1 or 2")),
        };
        let parent = parent.unwrap_or(name);
        if !below(parent) {
            return Err(format!(
                "--parent-cgroup {parent}: write a path below the hierarchy, without `.`, `..` or a \
                 leading `/`"
            ));
        }
        let values = values.iter().map(|word| {
            let parts = word.split_once('=');
            let parts = parts.filter(|(file, value)| {
                let plain = file.contains('.') && !file.contains('/') && below(file);
                plain && !value.is_empty() && !value.contains('=')
            });
            match parts {
                Some((file, value)) => Ok((file.to_owned(), value.to_owned())),
                None => Err(format!(
                    "--cgroup {word}: write CONTROLLER.FILE=VALUE, e.g. cpu.weight=50"
                )),
            }
        });
        Ok(Self {
            version,
            parent: parent.into(),
            values: values.collect::<Result<_, _>>()?,
        })
    }
}

/// Returns whether `path` is below its start: relative, and without `..`.
fn below(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// A mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    version: Version,
    path: PathBuf,
    /// Its mount options, which name the controllers of version 1.
    options: String,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        match self.version {
            Version::One => self.options.split(',').any(|option| option == controller),
            // The files of every group need no controller.
            Version::Two => {
                controller == "cgroup"
                    || fs::read_to_string(self.path.join("cgroup.controllers"))
                        .is_ok_and(|all| all.split_whitespace().any(|one| one == controller))
            }
        }
    }
}

/// Returns the hierarchies in `mounts`, of the form of [`MOUNTS`].
fn hierarchies(mounts: &str) -> Vec<Hierarchy> {
    let lines = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (path, kind, options) = (words.next()?, words.next()?, words.next()?);
        let version = match kind {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        Some(Hierarchy {
            version,
            path: OsString::from_vec(unescape(path.as_bytes())).into(),
            options: options.to_owned(),
        })
    });
    lines.collect()
}

/// One group to make, or to join if it exists.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    version: Version,
    hierarchy: PathBuf,
    /// Path below the hierarchy.
    path: PathBuf,
    values: Vec<(String, String)>,
    /// True if the group exists already, and is joined only.
    existing: bool,
}

/// All groups of the monitor.
#[derive(Debug, Default)]
pub struct Plan(Vec<Group>);

/// Finds the hierarchies of the groups in `request`.
pub fn check(request: &Request, id: &str, problems: &mut Vec<Problem>) -> Plan {
    if request.values.is_empty() && request.version != Some(Version::Two) {
        return Plan::default();
    }
    match fs::read_to_string(MOUNTS) {
        Ok(mounts) => plan(request, id, &hierarchies(&mounts), problems),
        Err(e) => {
            problems.push(Problem::new(
                "--cgroup",
                format!("cannot read {MOUNTS}: {e}"),
            ));
            Plan::default()
        }
    }
}

fn plan(request: &Request, id: &str, mounted: &[Hierarchy], problems: &mut Vec<Problem>) -> Plan {
    let mut groups: Vec<Group> = Vec::new();
    let wanted = |h: &&Hierarchy| request.version.is_none_or(|version| version == h.version);
    if request.values.is_empty() {
        // The documented way to join a group that the operator has made; a missing group is no error.
        let two = mounted.iter().find(wanted);
        let path = &request.parent;
        let there = two.filter(|h| h.path.join(path).is_dir());
        groups.extend(there.map(|h| Group {
            version: h.version,
            hierarchy: h.path.clone(),
            path: path.clone(),
            values: Vec::new(),
            existing: true,
        }));
    }
    for (file, value) in &request.values {
        let controller = file.split('.').next().unwrap_or_default();
        let found = [Version::One, Version::Two]
            .into_iter()
            .find_map(|version| {
                let mut all = mounted.iter().filter(wanted);
                all.find(|h| h.version == version && h.has(controller))
            });
        let Some(found) = found else {
            let which = match request.version {
                Some(Version::One) => " of version 1",
                Some(Version::Two) => " of version 2",
                None => "",
            };
            let message = format!(
                "no mounted control group hierarchy{which} has the controller `{controller}`: see \
                 /proc/cgroups and {MOUNTS}"
            );
            problems.push(Problem::new(format!("--cgroup {file}"), message));
            continue;
        };
        let value = (file.clone(), value.clone());
        match groups.iter_mut().find(|g| g.hierarchy == found.path) {
            Some(group) => group.values.push(value),
            None => groups.push(Group {
                version: found.version,
                hierarchy: found.path.clone(),
                path: request.parent.join(id),
                values: vec![value],
                existing: false,
            }),
        }
    }
    Plan(groups)
}

impl Plan {
    /// Returns the directories of the groups that are made for this guest alone.
    pub fn directories(&self) -> Vec<PathBuf> {
        let own = self.0.iter().filter(|group| !group.existing);
        own.map(Group::directory).collect()
    }

    /// Makes the groups, and moves this process into them.
    pub fn enter(&self, undo: &mut Undo) -> Result<(), Error> {
        self.0.iter().try_for_each(|group| group.enter(undo))
    }

    /// As [`Self::enter`], for a future child of this process. The child can be made in the group of version 2, which
    /// is returned.
    pub fn enter_for_child(&self, undo: &mut Undo) -> Result<Option<ForChild>, Error> {
        let mut for_child = None;
        for group in &self.0 {
            match group.version {
                Version::One => group.enter(undo)?,
                Version::Two => {
                    group.make_and_fill(undo)?;
                    for_child = Some(ForChild::new(&group.directory())?);
                }
            }
        }
        Ok(for_child)
    }
}

/// A group of version 2 for a future child. To move an existing process, the kernel waits until no process of the host
/// is forking or ending, for some 15 ms; a process that is made in its group does not wait.
#[derive(Debug)]
pub struct ForChild {
    /// Opened before the jail, in which it has no name.
    directory: Dir,
}

impl ForChild {
    fn new(path: &Path) -> Result<Self, Error> {
        let directory = Dir::open(path);
        Ok(Self {
            directory: directory.map_err(Error::step(format!("open {}", path.display())))?,
        })
    }

    /// Moves this process into it.
    pub fn enter(&self) -> Result<(), Error> {
        let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
        let opened = openat(&self.directory, PROCS, flags, Mode::empty());
        let written = opened
            .map_err(io::Error::from)
            .and_then(|file| File::from(file).write_all(b"0"));
        written.map_err(entering(self.directory.path()))
    }
}

impl AsFd for ForChild {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }
}

fn entering(directory: &Path) -> impl FnOnce(io::Error) -> Error {
    Error::step(format!(
        "move the process into the control group {}",
        directory.display()
    ))
}

impl Group {
    fn directory(&self) -> PathBuf {
        self.hierarchy.join(&self.path)
    }

    fn make_and_fill(&self, undo: &mut Undo) -> Result<(), Error> {
        if self.existing {
            return Ok(());
        }
        let directory = self.directory();
        let shown = directory.display();
        self.make(undo)?;
        for (file, value) in &self.values {
            write(&directory.join(file), value).map_err(Error::step(format!(
                "write `{value}` to {shown}/{file} (--cgroup {file})"
            )))?;
        }
        Ok(())
    }

    fn enter(&self, undo: &mut Undo) -> Result<(), Error> {
        self.make_and_fill(undo)?;
        let directory = self.directory();
        let before = self.own().map_err(Error::step(format!("read {OWN}")))?;
        // The process still has one thread. To move a thread, the kernel does not wait until no process of the host
        // is forking or ending, which takes tens of milliseconds.
        let members = match self.version {
            Version::One => TASKS,
            Version::Two => PROCS,
        };
        write(&directory.join(members), "0").map_err(entering(&directory))?;
        let what = format!("the process from the control group {}", directory.display());
        undo.made(what, move || write(&before.join(PROCS), "0"))
    }

    /// Makes its directory and the missing ones above it.
    fn make(&self, undo: &mut Undo) -> Result<(), Error> {
        let directory = self.directory();
        let failed = || Error::step::<io::Error>(format!("make {}", directory.display()));
        for attempt in 1.. {
            match self.make_once(undo)? {
                Ok(()) => break,
                Err(e) if is_removed(&e) && attempt < ATTEMPTS => {}
                Err(e) => return Err(failed()(e)),
            }
        }
        Ok(())
    }

    /// Tries once. The outer error is that a signal is pending.
    fn make_once(&self, undo: &mut Undo) -> Result<io::Result<()>, Error> {
        let mut path = self.hierarchy.clone();
        for part in self.path.components() {
            if let Err(e) = self.enable_below(&path) {
                return Ok(Err(e));
            }
            path.push(part);
            match fs::create_dir(&path) {
                Ok(()) => {
                    let made = path.clone();
                    let own = path == self.directory();
                    undo.made(path.display().to_string(), move || remove(&made, own))?;
                }
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Ok(Err(e)),
            }
            if self.version == Version::One
                && let Err(e) = inherit(&path)
            {
                return Ok(Err(e));
            }
        }
        Ok(Ok(()))
    }

    /// Enables the requested controllers in the groups below `path` (cgroup-v2.rst, "Enabling and Disabling").
    fn enable_below(&self, path: &Path) -> io::Result<()> {
        if self.version == Version::One {
            return Ok(());
        }
        let file = path.join("cgroup.subtree_control");
        let enabled = fs::read_to_string(&file)?;
        for (name, _) in &self.values {
            let controller = name.split('.').next().unwrap_or_default();
            let there = enabled.split_whitespace().any(|one| one == controller);
            if controller != "cgroup" && !there {
                let explained = |e: io::Error| {
                    if is_removed(&e) {
                        return e;
                    }
                    let hint = "it may have processes of its own: name another --parent-cgroup";
                    io::Error::new(e.kind(), format!("{}: {e}; {hint}", file.display()))
                };
                write(&file, &format!("+{controller}")).map_err(explained)?;
            }
        }
        Ok(())
    }

    /// Returns the group of this hierarchy that the process is in (cgroups(7)).
    fn own(&self) -> io::Result<PathBuf> {
        let text = fs::read_to_string(OWN)?;
        let mut lines = text.lines().filter_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            Some((parts.next()?, parts.next()?))
        });
        let own = lines.find_map(|(controllers, path)| {
            let ours = match self.version {
                Version::Two => controllers.is_empty(),
                Version::One => self.values.iter().any(|(file, _)| {
                    let controller = file.split('.').next();
                    controllers.split(',').any(|one| Some(one) == controller)
                }),
            };
            ours.then_some(path)
        });
        let path = own.unwrap_or_default().trim_start_matches('/');
        Ok(self.hierarchy.join(path))
    }
}

/// Returns whether the group was removed before or during the write.
fn is_removed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Fills the files that are empty in a new group of version 1 from the group above.
fn inherit(directory: &Path) -> io::Result<()> {
    for name in INHERITED {
        let file = directory.join(name);
        let Ok(value) = fs::read_to_string(&file) else {
            // This controller has no such file.
            continue;
        };
        if value.trim().is_empty() {
            let above = directory.with_file_name(name);
            write(&file, fs::read_to_string(above)?.trim())?;
        }
    }
    Ok(())
}

/// Writes `value` in one write, as the kernel expects it.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let written = file.write(value.as_bytes())?;
    if written < value.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// Removes a group. A group that is not the guest's own stays if it is in use.
fn remove(directory: &Path, own: bool) -> io::Result<()> {
    if own {
        return remove_own(directory);
    }
    match fs::remove_dir(directory) {
        Err(e) if e.raw_os_error() == Some(libc::EBUSY) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
        removed => removed,
    }
}

/// Removes a group when the last process in it has ended. An ending process closes its files, and so releases its
/// jail's lock, before it leaves its groups.
fn remove_own(directory: &Path) -> io::Result<()> {
    let started = Instant::now();
    loop {
        match fs::remove_dir(directory) {
            Err(e) if e.raw_os_error() == Some(libc::EBUSY) && started.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(1));
            }
            removed => return removed,
        }
    }
}

/// Removes the group `directory` of an ended guest, if it is a control group and empty.
pub fn remove_left(directory: &Path) -> io::Result<()> {
    // Every group has this file, and other directories do not.
    if !directory.join(PROCS).is_file() {
        return Ok(());
    }
    remove_own(directory)
}

#[cfg(test)]
#[path = "cgroup_test.rs"]
mod cgroup_test;
