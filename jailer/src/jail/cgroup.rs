//! Control groups: `<hierarchy>/<parent>/<id>`, made for the VMM and entered before it runs.
//!
//! Version 2 has one hierarchy and version 1 (Linux, Documentation/admin-guide/cgroup-v1) one for each
//! set of controllers. A version that is asked for is taken; else, as the original does, version 1
//! where it has the controller, and version 2 elsewhere.

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

/// Where the kernel tells what is mounted.
const MOUNTS: &str = "/proc/mounts";
/// Which groups this process is in.
const OWN: &str = "/proc/self/cgroup";
/// Who is in a group; writing `0` puts the writer there. Both versions have it.
const PROCS: &str = "cgroup.procs";
/// The same for the threads of a process, in version 1.
const TASKS: &str = "tasks";
/// How long a process that has ended may still be in its group.
const PATIENCE: Duration = Duration::from_secs(2);
/// Files of version 1 that a new group has empty, so that it takes no process (cpusets.rst).
const INHERITED: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];
/// How often a group whose parent another jailer removed meanwhile is made again.
const ATTEMPTS: usize = 16;

/// The version of a hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// One hierarchy for each set of controllers.
    One,
    /// One hierarchy.
    Two,
}

/// What the command line asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    version: Option<Version>,
    parent: PathBuf,
    /// Files with what to write into them.
    values: Vec<(String, String)>,
}

impl Request {
    /// Reads the words of `--cgroup`, `--cgroup-version` and `--parent-cgroup`; the parent is `name`
    /// if not given.
    ///
    /// # Errors
    /// What is wrong with them.
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

/// Whether `path` leads down only.
fn below(path: &str) -> bool {
    let mut parts = Path::new(path).components().peekable();
    parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_)))
}

/// A mounted hierarchy.
#[derive(Debug)]
struct Hierarchy {
    version: Version,
    path: PathBuf,
    /// Controllers of version 1 are among its mount options.
    options: String,
}

impl Hierarchy {
    fn has(&self, controller: &str) -> bool {
        match self.version {
            Version::One => self.options.split(',').any(|option| option == controller),
            // What belongs to every group needs no controller.
            Version::Two => {
                controller == "cgroup"
                    || fs::read_to_string(self.path.join("cgroup.controllers"))
                        .is_ok_and(|all| all.split_whitespace().any(|one| one == controller))
            }
        }
    }
}

/// The hierarchies that `mounts`, of the form of [`MOUNTS`], has.
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

/// One group to make, or to join if it is there.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    version: Version,
    hierarchy: PathBuf,
    /// Below the hierarchy.
    path: PathBuf,
    values: Vec<(String, String)>,
    /// Only join it.
    existing: bool,
}

/// All groups that the VMM goes into.
#[derive(Debug, Default)]
pub struct Plan(Vec<Group>);

/// Finds where the groups that `request` asks for go.
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
        // The documented way to be put into a group that the operator has made; one that is absent
        // is no error.
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
    /// The directories of the groups that are made for this guest alone.
    pub fn directories(&self) -> Vec<PathBuf> {
        let own = self.0.iter().filter(|group| !group.existing);
        own.map(Group::directory).collect()
    }

    /// Makes the groups and puts this process into them.
    pub fn enter(&self, undo: &mut Undo) -> Result<(), Error> {
        self.0.iter().try_for_each(|group| group.enter(undo))
    }

    /// The same for a process that this one will make, but for the group of version 2: that one can be made in it.
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

/// A group of version 2 for a process that is yet to be made. To move one that is there, the kernel waits until no
/// process of the host is just forking or ending: some 15 ms; one that is made in a group needs no wait.
#[derive(Debug)]
pub struct ForChild {
    /// Open from before the jail, in which it has no name.
    directory: Dir,
}

impl ForChild {
    fn new(path: &Path) -> Result<Self, Error> {
        let directory = Dir::open(path);
        Ok(Self {
            directory: directory.map_err(Error::step(format!("open {}", path.display())))?,
        })
    }

    /// Puts this process into it.
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
        "put the process into the control group {}",
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
        // The process has one thread yet. To move that alone the kernel need not wait until no process of the
        // host forks or ends, which takes it tens of milliseconds.
        let members = match self.version {
            Version::One => TASKS,
            Version::Two => PROCS,
        };
        write(&directory.join(members), "0").map_err(entering(&directory))?;
        let what = format!("being in the control group {}", directory.display());
        undo.made(what, move || write(&before.join(PROCS), "0"))
    }

    /// Makes its directory and those above it.
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

    /// The outer error is a signal's.
    fn make_once(&self, undo: &mut Undo) -> Result<io::Result<()>, Error> {
        let mut path = self.hierarchy.clone();
        for part in self.path.components() {
            if let Err(e) = self.hand_down(&path) {
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

    /// Lets the groups below `path` have the controllers that are asked for (cgroup-v2.rst, "Enabling
    /// and Disabling").
    fn hand_down(&self, path: &Path) -> io::Result<()> {
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
                    let hint = "has it processes of its own? name another --parent-cgroup";
                    io::Error::new(e.kind(), format!("{}: {e}; {hint}", file.display()))
                };
                write(&file, &format!("+{controller}")).map_err(explained)?;
            }
        }
        Ok(())
    }

    /// The group of this hierarchy that the process is in (cgroups(7)).
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

/// Whether the group had gone when we looked, or went while we wrote.
fn is_removed(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Fills the files that are empty in a new group of version 1 from the group above.
fn inherit(directory: &Path) -> io::Result<()> {
    for name in INHERITED {
        let file = directory.join(name);
        let Ok(value) = fs::read_to_string(&file) else {
            // Another controller's.
            continue;
        };
        if value.trim().is_empty() {
            let above = directory.with_file_name(name);
            write(&file, fs::read_to_string(above)?.trim())?;
        }
    }
    Ok(())
}

/// One write, as these files want it.
fn write(path: &Path, value: &str) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).open(path)?;
    let written = file.write(value.as_bytes())?;
    if written < value.len() {
        return Err(io::ErrorKind::WriteZero.into());
    }
    Ok(())
}

/// Removes a group; one that is not the guest's own stays if others are in it.
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

/// Removes a group when the last process in it has ended: it lets go of its files, and with them of its
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

/// Removes the group `directory`, which a guest left, if it is one and nobody is in it.
pub fn remove_left(directory: &Path) -> io::Result<()> {
    // A group has this file, and no other directory has a reason to.
    if !directory.join(PROCS).is_file() {
        return Ok(());
    }
    remove_own(directory)
}

#[cfg(test)]
#[path = "cgroup_test.rs"]
mod cgroup_test;
