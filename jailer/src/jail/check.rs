//! Checks everything before anything is made, and reports all problems at once.

use crate::confine::namespaces::{self, HostMounts};
use crate::confine::privileges;
use crate::error::{Error, warn};
use crate::jail::cgroup;
use crate::jail::exec_file::ExecFile;
use crate::jail::lock;
use crate::jail::options::Options;
use crate::jail::seed;
use crate::network::{self, Interface};
use crate::storage::drives::{self, Files, Image};
use crate::sys::dir::kind;
use nix::sys::stat::{SFlag, fstat};
use nix::sys::statvfs::{FsFlags, statvfs};
use resources::{ConfigError, Problem, VmConfig};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::AsFd as _;
use std::path::Path;

/// A checked start. Existing files and devices are open.
#[derive(Debug)]
pub struct Plan {
    /// The monitor.
    pub exec: ExecFile,
    /// The guest, if there is a configuration file.
    pub guest: Option<Guest>,
    /// The control groups.
    pub cgroups: cgroup::Plan,
    /// The mount namespace in which the jailer was started.
    pub home: HostMounts,
}

/// A checked guest.
#[derive(Debug)]
pub struct Guest {
    /// Its configuration, with the host's paths.
    pub config: VmConfig,
    /// Its files.
    pub files: Files<Image>,
    /// Its interfaces.
    pub interfaces: Vec<Interface>,
    /// Its cloud-init seed.
    pub seed: Option<Vec<u8>>,
}

impl Guest {
    /// Returns the bridges of its interfaces.
    pub fn bridges(&self) -> impl Iterator<Item = &str> {
        let interfaces = self.config.network_interfaces.iter();
        interfaces.filter_map(|interface| interface.bridge.as_deref())
    }
}

/// Enters a mount namespace of its own and the requested network namespace, which leave no trace, and checks everything
/// from there.
///
/// # Errors
/// [`Error::Problems`] with all problems; [`Error::Step`] if the process cannot enter the namespaces.
pub fn check(options: &Options) -> Result<Plan, Error> {
    let mut problems = Vec::new();
    let home = if nix::unistd::geteuid().is_root() {
        privileges::drop_groups().map_err(Error::step("leave the groups of the superuser"))?;
        Some(namespaces::own_mounts()?)
    } else {
        let message = "must be started by root, e.g. with sudo; the guest itself runs as --uid";
        problems.push(Problem::new("jailer", message));
        None
    };
    let network = home.is_some() && enter_network(options.netns.as_deref(), &mut problems);
    let exec = ExecFile::open(&options.exec_file)
        .map_err(|message| problems.push(Problem::new("--exec-file", message)))
        .ok();
    check_streams(&mut problems);
    check_user(options);
    check_base(options, &mut problems);
    check_kvm(&mut problems);
    let cgroups = cgroup::check(&options.cgroup, &options.id, &mut problems);
    let guest = options
        .config_file
        .as_deref()
        .map(|path| guest(path, options, network, &mut problems));
    match (home, exec) {
        (Some(home), Some(exec)) if problems.is_empty() => Ok(Plan {
            exec,
            guest: guest.flatten(),
            cgroups,
            home,
        }),
        _ => Err(Error::Problems(problems)),
    }
}

fn enter_network(path: Option<&Path>, problems: &mut Vec<Problem>) -> bool {
    let Some(path) = path else {
        return true;
    };
    let Err(e) = namespaces::enter_network(path) else {
        return true;
    };
    let message = format!(
        "cannot enter {}: {e}; make one with `ip netns add NAME` and give /run/netns/NAME",
        path.display()
    );
    problems.push(Problem::new("--netns", message));
    false
}

/// The monitor inherits the standard streams.
fn check_streams(problems: &mut Vec<Problem>) {
    let (input, output, errors) = (io::stdin(), io::stdout(), io::stderr());
    for (stream, name) in [
        (input.as_fd(), "standard input"),
        (output.as_fd(), "standard output"),
        (errors.as_fd(), "standard error"),
    ] {
        if fstat(stream).is_ok_and(|stat| kind(&stat) == SFlag::S_IFDIR) {
            let message =
                "is a directory, through which a process could leave the jail; use /dev/null";
            problems.push(Problem::new(name, message));
        }
    }
}

fn check_user(options: &Options) {
    if options.allot.is_none() && options.owner.uid.is_root() && !options.process.new_pid_ns {
        warn(
            "--uid 0: the monitor runs as root, though without privileges, and before Linux 6.12 it can signal \
             the host's processes: give it a user of its own (--uid auto), or --new-pid-ns",
        );
    }
}

fn check_base(options: &Options, problems: &mut Vec<Problem>) {
    let shown = options.base.display();
    let mut wrong = |message| problems.push(Problem::new("--chroot-base-dir", message));
    let looked_at = match options.base.metadata() {
        Err(e) if e.kind() == io::ErrorKind::NotFound && !options.base_given => {
            options.base.parent().unwrap_or(&options.base)
        }
        Err(e) => return wrong(format!("cannot use {shown}: {e}; `mkdir -p {shown}`")),
        Ok(metadata) if !metadata.is_dir() => {
            return wrong(format!("{shown} is not a directory"));
        }
        Ok(_) => &options.base,
    };
    match statvfs(looked_at) {
        Err(e) => wrong(format!("cannot use {shown}: {e}; `mkdir -p {shown}`")),
        Ok(system) => {
            for (flag, name) in [
                (FsFlags::ST_NODEV, "nodev"),
                (FsFlags::ST_NOEXEC, "noexec"),
                (FsFlags::ST_RDONLY, "ro"),
            ] {
                if system.flags().contains(flag) {
                    wrong(format!(
                        "{shown} is on a file system mounted `{name}`, but a jail holds a program and device \
                         nodes: name another directory"
                    ));
                }
            }
        }
    }
    if lock::is_running(options) {
        let message = format!("cannot {}", lock::in_use(&options.id));
        problems.push(Problem::new("--id", message));
    }
}

fn check_kvm(problems: &mut Vec<Problem>) {
    let opened = OpenOptions::new().read(true).write(true).open("/dev/kvm");
    let message = match opened {
        Ok(_) => return,
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return,
        Err(e) => format!(
            "cannot open it: {e}; this machine has no hardware virtualization, the firmware disables it, or \
             the module is not loaded (try `modprobe kvm_intel` or `modprobe kvm_amd`)"
        ),
    };
    problems.push(Problem::new("/dev/kvm", message));
}

fn guest(
    path: &Path,
    options: &Options,
    network: bool,
    problems: &mut Vec<Problem>,
) -> Option<Guest> {
    let loaded = match VmConfig::from_file(path) {
        Ok(loaded) => loaded,
        Err(ConfigError::Invalid {
            problems: found, ..
        }) => {
            problems.extend(in_file(path, found));
            return None;
        }
        Err(error) => {
            let message = crate::error::chain(&error);
            problems.push(Problem::new("--config-file", message));
            return None;
        }
    };
    loaded.warnings.iter().for_each(|warning| warn(warning));
    let config = loaded.config;
    let mut found = Vec::new();
    let files = drives::check(&config, options.owner, &mut found);
    let interfaces = match network {
        true => network::check(&config.network_interfaces, &mut found),
        false => Vec::new(),
    };
    let seed = seed::make(&config, &mut found);
    problems.extend(in_file(path, found));
    Some(Guest {
        files: files?,
        interfaces,
        seed,
        config,
    })
}

/// Puts the file's name before each key.
fn in_file(path: &Path, found: Vec<Problem>) -> impl Iterator<Item = Problem> {
    let file = path.display().to_string();
    found
        .into_iter()
        .map(move |p| Problem::new(format!("{file}: {}", p.key), p.message))
}
