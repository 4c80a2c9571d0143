//! The command line of `jailer`: Firecracker's flags, and `--config-file`. If it begins with a word
//! instead, that is a command and [`crate::commands`]'s.

use argh::FromArgs;
use nix::unistd::{Gid, Uid};
use std::ffi::OsString;
use std::path::PathBuf;

use crate::commands::{self, Command};
use crate::dir::Owner;

/// What the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Start a guest.
    Start(Box<Options>),
    /// Do this.
    Command(Box<Command>),
    /// Print this and end with status 0.
    Print(String),
}

/// A guest to start, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The guest's name: letters, digits and `-`.
    pub id: String,
    /// The VMM.
    pub exec_file: PathBuf,
    /// Name of the VMM's file, which names its jails.
    pub exec_name: String,
    /// Whom the VMM runs as.
    pub owner: Owner,
    /// Where jails are.
    pub base: PathBuf,
    /// Whether the user named [`Self::base`]: the default is created if absent.
    pub base_given: bool,
    /// Network namespace to start in.
    pub netns: Option<PathBuf>,
    /// The guest's JSON file.
    pub config_file: Option<PathBuf>,
    /// Limits of the VMM's process.
    pub limits: Limits,
    /// Arguments of the VMM, untouched.
    pub pass_through: Vec<OsString>,
}

/// Limits of the VMM's process (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Number of open files.
    pub no_file: u64,
    /// Largest file it may write, in bytes.
    pub fsize: Option<u64>,
}

const DEFAULT_BASE: &str = "/srv/jailer";
const DEFAULT_NO_FILE: u64 = 2048;

/// Names that the jail itself uses in its root.
pub const RESERVED: [&str; 6] = ["dev", "drives", "initrd", "kernel", "run", "vm.json"];

/// Prepares a guest on this host, as root, and becomes its VMM without any privilege: creates missing
/// disk images, the bridge and the taps, locks the process into a directory of its own, and
/// executes the VMM as the given user. The process id stays the same.
#[derive(FromArgs)]
#[argh(
    example = "jailer --id web1 --exec-file /usr/bin/bantam --uid 1000 --gid 1000 --config-file vm.json -- --no-api\n\nvm.json (paths are the host's):\n{{\n  \"boot-source\": {{\"kernel_image_path\": \"/boot/vmlinuz\", \"initrd_path\": \"initrd.img\",\n                  \"boot_args\": \"console=ttyS0\"}},\n  \"drives\": [{{\"drive_id\": \"root\", \"is_root_device\": true, \"path_on_host\": \"web1.img\",\n              \"size_mib\": 2048, \"template\": \"debian.img\", \"cache_type\": \"Writeback\"}}],\n  \"network-interfaces\": [{{\"iface_id\": \"eth0\", \"host_dev_name\": \"web1\", \"bridge\": \"br0\"}}]\n}}",
    note = "An image that does not exist is created with `size_mib`, sparse, from `template` if given; one\nthat exists is used as it is, and the user must be able to open it. A tap with `bridge` is\ncreated and ends with the guest; one without must exist. A start that fails takes back\nwhat it made. The jail is CHROOT-BASE-DIR/EXEC-NAME/ID/root; its API socket is\nrun/firecracker.socket there. After `--` come the VMM's own arguments, with paths in the jail.",
    error_code(0, "and all others: the VMM's, see `bantam --help`"),
    error_code(1, "the host refused a step; what was made is taken back"),
    error_code(
        152,
        "the configuration or a file it names cannot be used; nothing was made"
    ),
    error_code(153, "bad arguments")
)]
struct Arguments {
    /// name of the guest: 1 to 64 letters, digits and `-`
    #[argh(option)]
    id: Option<String>,
    /// the VMM, a static program
    #[argh(option)]
    exec_file: Option<PathBuf>,
    /// user the VMM runs as
    #[argh(option)]
    uid: Option<u32>,
    /// group the VMM runs as
    #[argh(option)]
    gid: Option<u32>,
    /// directory of jails (/srv/jailer)
    #[argh(option)]
    chroot_base_dir: Option<PathBuf>,
    /// the guest's JSON file, with paths of the host
    #[argh(option)]
    config_file: Option<PathBuf>,
    /// network namespace to start in, e.g. /run/netns/web
    #[argh(option)]
    netns: Option<PathBuf>,
    /// limit of the VMM's process: no-file=N open files (2048) or fsize=N bytes per file; may be repeated
    #[argh(option)]
    resource_limit: Vec<String>,
    /// not supported by this version
    #[argh(switch)]
    daemonize: bool,
    /// not supported by this version
    #[argh(switch)]
    new_pid_ns: bool,
    /// not supported by this version
    #[argh(option)]
    cgroup: Vec<String>,
    /// not supported by this version
    #[argh(option)]
    cgroup_version: Option<String>,
    /// not supported by this version
    #[argh(option)]
    parent_cgroup: Option<String>,
    /// print the version
    #[argh(switch)]
    version: bool,
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// What to print for the user, who gets status 153.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Action, String> {
    let failed = |message: String| format!("jailer: error: {message}");
    let mut arguments = arguments.skip(1);
    let mut words = Vec::new();
    for argument in arguments.by_ref() {
        if argument == "--" {
            break;
        }
        let word = argument.into_string();
        words.push(word.map_err(|bad| failed(format!("{bad:?} is not UTF-8")))?);
    }
    if let Some((flag, value)) = words.iter().find_map(|word| {
        let (flag, value) = word.split_once('=')?;
        flag.starts_with("--").then_some((flag, value))
    }) {
        return Err(failed(format!(
            "write `{flag} {value}`, not `{flag}={value}`"
        )));
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    if words.first().is_some_and(|word| !word.starts_with('-')) {
        return match commands::parse(&words).map_err(failed)? {
            commands::Parsed::Run(command) => Ok(Action::Command(Box::new(command))),
            commands::Parsed::Print(text) => Ok(Action::Print(text)),
        };
    }
    match Arguments::from_args(&["jailer"], &words) {
        Ok(read) => read.check(arguments.collect()).map_err(failed),
        Err(early) if early.status.is_ok() => Ok(Action::Print(format!(
            "{}\n{}",
            early.output,
            commands::list()
        ))),
        Err(early) => Err(failed(early.output.trim_end().into())),
    }
}

impl Arguments {
    fn check(self, pass_through: Vec<OsString>) -> Result<Action, String> {
        if self.version {
            let version = env!("CARGO_PKG_VERSION");
            return Ok(Action::Print(format!("Bantam jailer v{version}\n")));
        }
        let unsupported = [
            ("--daemonize", self.daemonize),
            ("--new-pid-ns", self.new_pid_ns),
            ("--cgroup", !self.cgroup.is_empty()),
            ("--cgroup-version", self.cgroup_version.is_some()),
            ("--parent-cgroup", self.parent_cgroup.is_some()),
        ];
        if let Some((flag, _)) = unsupported.into_iter().find(|(_, given)| *given) {
            return Err(format!(
                "{flag} is not supported by this version: remove it"
            ));
        }
        let id = needed("--id", self.id)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if id.is_empty() || id.len() > 64 || !id.chars().all(plain) {
            return Err(format!("--id {id}: use 1 to 64 letters, digits and `-`"));
        }
        let exec_file = needed("--exec-file", self.exec_file)?;
        let exec_name = exec_file.file_name().and_then(|name| name.to_str());
        let exec_name = exec_name.unwrap_or_default().to_owned();
        if exec_name.is_empty() || RESERVED.contains(&exec_name.as_str()) {
            return Err(format!(
                "--exec-file {}: its name cannot name a jail: rename the file",
                exec_file.display()
            ));
        }
        let uid = needed("--uid", self.uid)?;
        let gid = needed("--gid", self.gid)?;
        for (flag, number) in [("--uid", uid), ("--gid", gid)] {
            // The kernel's "leave it as it is".
            if number == u32::MAX {
                return Err(format!("{flag} {number}: must be less than {number}"));
            }
        }
        if self.config_file.is_some() && pass_through.iter().any(|word| word == "--config-file") {
            return Err(
                "--config-file is given before and after `--`: before it, paths are the host's, \
                 after it, they are the jail's; use one"
                    .into(),
            );
        }
        Ok(Action::Start(Box::new(Options {
            id,
            exec_file,
            exec_name,
            owner: Owner {
                uid: Uid::from_raw(uid),
                gid: Gid::from_raw(gid),
            },
            base_given: self.chroot_base_dir.is_some(),
            base: self.chroot_base_dir.unwrap_or_else(|| DEFAULT_BASE.into()),
            netns: self.netns,
            config_file: self.config_file,
            limits: Limits::parse(&self.resource_limit)?,
            pass_through,
        })))
    }
}

fn needed<T>(flag: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| {
        format!(
            "{flag} is missing: jailer --id ID --exec-file BANTAM --uid N --gid N \
             [--config-file vm.json] [-- ARGUMENTS] (see --help)"
        )
    })
}

impl Limits {
    fn parse(words: &[String]) -> Result<Self, String> {
        let mut limits = Self {
            no_file: DEFAULT_NO_FILE,
            fsize: None,
        };
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
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod cli_test;
