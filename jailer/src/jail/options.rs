//! The options of a start: the guest, its monitor, and how the monitor's process is set up.

use crate::jail::cgroup;
use crate::jail::layout::RESERVED;
use crate::jail::uids;
use crate::sys::dir::Owner;
use nix::sys::resource::{Resource, setrlimit};
use resources::VmConfig;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// A guest to start, and its jail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The guest's id: 1 to 64 letters, digits and `-`.
    pub id: String,
    /// The monitor's file.
    pub exec_file: PathBuf,
    /// Name of the monitor's file, which its directory of jails has as well.
    pub exec_name: String,
    /// User and group that the monitor runs as.
    pub owner: Owner,
    /// Range from which [`Self::owner`] is taken, if no other guest may have the same.
    pub allot: Option<uids::Range>,
    /// Directory of jails.
    pub base: PathBuf,
    /// Whether the user named [`Self::base`]; the default is made if it is missing.
    pub base_given: bool,
    /// Network namespace to enter.
    pub netns: Option<PathBuf>,
    /// The guest's JSON file.
    pub config_file: Option<PathBuf>,
    /// The guest of which this one is a copy, whose jail is beside its own.
    pub copy_of: Option<String>,
    /// Limits of the monitor's process.
    pub limits: Limits,
    /// Control groups of the monitor's process.
    pub cgroup: cgroup::Request,
    /// Set-up of the monitor's process.
    pub process: Process,
    /// Arguments of the monitor, unchanged.
    pub pass_through: Vec<OsString>,
}

/// The set-up of the monitor's process. By default the jailer's own process becomes the monitor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// True to run in a session of its own, without a terminal, while the jailer exits.
    pub daemonize: bool,
    /// True to run as the first process of a new PID namespace.
    pub new_pid_ns: bool,
    /// True to run as root of a new user namespace; outside, it is [`Options::owner`].
    pub new_user_ns: bool,
    /// File for the standard error of a monitor without a terminal; emptied at each start.
    pub messages: Option<PathBuf>,
    /// True if standard input is the lifeline of a monitor that waits for its guest: the monitor exits when the pipe closes.
    pub lifeline: bool,
}

/// Limits of the monitor's process (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of open files.
    pub no_file: u64,
    /// Largest file that it may write, in bytes.
    pub fsize: Option<u64>,
}

/// Default directory of jails.
pub const DEFAULT_BASE: &str = "/srv/jailer";
const DEFAULT_NO_FILE: u64 = 2048;
/// Default limits.
pub const DEFAULT_LIMITS: Limits = Limits {
    no_file: DEFAULT_NO_FILE,
    fsize: None,
};

impl Limits {
    /// Reads the values of `--resource-limit`.
    pub fn parse(words: &[String]) -> Result<Self, String> {
        let mut limits = DEFAULT_LIMITS;
        for word in words {
            let parsed = word
                .split_once('=')
                .and_then(|(name, value)| Some((name, value.parse::<u64>().ok()?)));
            match parsed {
                Some(("no-file", number)) => limits.no_file = number,
                Some(("fsize", number)) => limits.fsize = Some(number),
                _ => {
                    return Err(format!(
                        "--resource-limit {word}: write no-file=N or fsize=N"
                    ));
                }
            }
        }
        Ok(limits)
    }

    /// Sets the limits of this process.
    pub fn apply(self) -> io::Result<()> {
        setrlimit(Resource::RLIMIT_NOFILE, self.no_file, self.no_file)?;
        if let Some(bytes) = self.fsize {
            setrlimit(Resource::RLIMIT_FSIZE, bytes, bytes)?;
        }
        Ok(())
    }
}

/// Checks that `id` can name a guest.
pub fn check_id(id: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
        return Err(format!("--id {id}: use 1 to 64 letters, digits and `-`"));
    }
    Ok(())
}

/// Returns the name of the monitor `path`, which its directory of jails has as well.
pub fn exec_name(path: &Path) -> Result<String, String> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.unwrap_or_default();
    if name.is_empty() || RESERVED.contains(&name) {
        return Err(format!(
            "--exec-file {}: a jail cannot have its name: rename the file",
            path.display()
        ));
    }
    Ok(name.to_owned())
}

/// Returns the directory of jails and the name of the monitor of the guest that `config` defines.
pub fn place(config: &VmConfig) -> (&'static Path, String) {
    let named = config
        .host
        .as_ref()
        .and_then(|host| host.exec_file.as_ref());
    let name = named.and_then(|path| exec_name(path).ok());
    (Path::new(DEFAULT_BASE), name.unwrap_or("bantam".into()))
}
