//! The command line of `jailer`: Firecracker's flags, `--config-file`, and the command `clean`.

use argh::FromArgs;
use jailer::jail::options::{DEFAULT_BASE, Limits, Options, Process, check_id, exec_name};
use jailer::jail::{cgroup, uids};
use jailer::sys::dir::Owner;
use nix::unistd::{Gid, Uid};
use std::ffi::OsString;
use std::path::PathBuf;

/// The action that the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Start a guest.
    Start(Box<Options>),
    /// Remove what an ended guest left.
    Clean(Jail),
    /// Print this text, and exit with status 0.
    Print(String),
}

/// The jail of a guest.
#[derive(Debug)]
pub struct Jail {
    /// Directory of jails.
    pub base: PathBuf,
    /// Name of the monitor's file.
    pub exec_name: String,
    /// The guest's id.
    pub id: String,
}

/// Commands of `bantamctl`, which `jailer` had before.
const MOVED: [&str; 12] = [
    "create", "start", "stop", "destroy", "list", "show", "console", "fork", "undefine", "run",
    "pool", "volume",
];

/// Firecracker's flags, and `--config-file`.
#[derive(FromArgs)]
#[argh(
    description = "Prepares a guest on this host as root, and becomes its monitor without any privilege. Creates missing\ndisk images, the bridge and the taps, confines the process to a directory of its own, and executes\nthe monitor as the given user. The process id stays the same.",
    example = "jailer --id web1 --exec-file /usr/bin/bantam --uid 1000 --gid 1000 --config-file vm.json -- --no-api\n\nvm.json (paths are the host's):\n{{\n  \"boot-source\": {{\"kernel_image_path\": \"/boot/vmlinuz\", \"initrd_path\": \"initrd.img\",\n                  \"boot_args\": \"console=ttyS0\"}},\n  \"drives\": [{{\"drive_id\": \"root\", \"is_root_device\": true, \"path_on_host\": \"web1.img\",\n              \"size_mib\": 2048, \"template\": \"debian.img\", \"cache_type\": \"Writeback\"}}],\n  \"network-interfaces\": [{{\"iface_id\": \"eth0\", \"host_dev_name\": \"web1\", \"bridge\": \"br0\"}}]\n}}",
    note = "A missing image is created with `size_mib`, sparse, as a copy of `template` if given; an existing\nimage is used as it is, and the user must be able to open it. A tap with `bridge` is created, and\ndisappears with the guest; a tap without `bridge` must exist. A failed start removes what it created.\nThe jail is CHROOT-BASE-DIR/EXEC-NAME/ID/root. The API socket in it is run/firecracker.socket. The\narguments after `--` are the monitor's, with paths in the jail.\n\n`jailer clean --id ID` removes what an ended guest left (`jailer clean --help`). Guests, pools and\nvolumes by name are bantamctl's.",
    error_code(0, "and all others: the monitor's, see `bantam --help`"),
    error_code(1, "the host refused a step; what was created is removed"),
    error_code(
        152,
        "the configuration or a file it names cannot be used; what was created is removed"
    ),
    error_code(153, "bad arguments")
)]
struct Arguments {
    /// id of the guest: 1 to 64 letters, digits and `-`
    #[argh(option)]
    id: Option<String>,
    /// the monitor, a static program
    #[argh(option)]
    exec_file: Option<PathBuf>,
    /// user id of the monitor, or `auto` for one of --uid-range that no running guest has
    #[argh(option)]
    uid: Option<String>,
    /// group id of the monitor; with `--uid auto` it equals the user id
    #[argh(option)]
    gid: Option<u32>,
    /// user ids for `--uid auto` (FIRST-LAST; default: 64200-65199)
    #[argh(option)]
    uid_range: Option<String>,
    /// directory of jails (default: /srv/jailer)
    #[argh(option)]
    chroot_base_dir: Option<PathBuf>,
    /// the guest's JSON file, with paths of the host
    #[argh(option)]
    config_file: Option<PathBuf>,
    /// network namespace to enter, e.g. /run/netns/web
    #[argh(option)]
    netns: Option<PathBuf>,
    /// limit of the monitor's process: no-file=N open files (default: 2048) or fsize=N bytes per file;
    /// may be repeated
    #[argh(option)]
    resource_limit: Vec<String>,
    /// leave the terminal: the monitor gets a session of its own and /dev/null, and the jailer exits
    #[argh(switch)]
    daemonize: bool,
    /// run the monitor as the first process of a new PID namespace
    #[argh(switch)]
    new_pid_ns: bool,
    /// run the monitor as root of a new user namespace; outside, it is the user of --uid
    #[argh(switch)]
    new_user_ns: bool,
    /// value of the monitor's own control group, e.g. cpu.weight=50; may be repeated
    #[argh(option)]
    cgroup: Vec<String>,
    /// version of the control groups: 1 or 2 (default: 1 where it has the controller, else 2)
    #[argh(option)]
    cgroup_version: Option<String>,
    /// parent of the monitor's control group (default: the name of the monitor's file)
    #[argh(option)]
    parent_cgroup: Option<String>,
    /// print the version
    #[argh(switch)]
    version: bool,
}

/// The command `clean`.
#[derive(FromArgs)]
#[argh(
    description = "Removes what an ended guest left on the host: control groups, packet filter rules, its bridge if the\njailer created it and no guest uses it, and the jailer's files in its jail. Logs and other files stay.\nA running guest is not touched; a missing jail is no error.",
    example = "jailer clean --id web1\njailer clean --id 551e7604 --exec-file /usr/bin/firecracker --chroot-base-dir /srv/jailer"
)]
struct Clean {
    /// id of the guest
    #[argh(option)]
    id: Option<String>,
    /// monitor that the guest was started with (default: bantam)
    #[argh(option, default = "\"bantam\".into()")]
    exec_file: PathBuf,
    /// directory of jails (default: /srv/jailer)
    #[argh(option, default = "DEFAULT_BASE.into()")]
    chroot_base_dir: PathBuf,
}

/// Reads the command line, of which the first word is the program's name.
///
/// # Errors
/// The message for the user; the exit status is 153.
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
    match words.split_first() {
        Some((&"clean", rest)) => match Clean::from_args(&["jailer", "clean"], rest) {
            Ok(clean) => clean.check().map(Action::Clean).map_err(failed),
            Err(early) => ended(early, CLEAN_USAGE).map_err(failed),
        },
        Some((word, _)) if MOVED.contains(word) => Err(failed(format!(
            "`{word}` is a command of bantamctl: `bantamctl {word} ...`"
        ))),
        Some((word, _)) if !word.starts_with('-') && *word != "help" => Err(failed(format!(
            "there is no command `{word}`: jailer has `clean`, and flags (see --help)"
        ))),
        _ => match Arguments::from_args(&["jailer"], &words) {
            Ok(read) => read.check(arguments.collect()).map_err(failed),
            Err(early) => ended(early, USAGE).map_err(failed),
        },
    }
}

/// Usage of a start and of `clean`, in place of argh's, which shows required flags in brackets.
const USAGE: &str =
    "jailer --id ID --exec-file FILE --uid UID --gid GID [OPTION]... [-- MONITOR-OPTION...]
       jailer clean --id ID [OPTION]...";
const CLEAN_USAGE: &str = "jailer clean --id ID [--exec-file FILE] [--chroot-base-dir DIRECTORY]";

/// Returns the help that the command line asked for, or an error message.
fn ended(early: argh::EarlyExit, usage: &str) -> Result<Action, String> {
    match early.status {
        Ok(()) => {
            let text = early.output.split_once('\n').unwrap_or_default().1;
            Ok(Action::Print(format!("Usage: {usage}\n{text}\n")))
        }
        Err(()) => Err(early.output.trim_end().into()),
    }
}

impl Clean {
    fn check(self) -> Result<Jail, String> {
        let id = self.id.ok_or(
            "--id is missing: `jailer clean --id ID` cleans up after a guest, `bantamctl clean` after an \
             interrupted `bantamctl fork`",
        )?;
        check_id(&id)?;
        Ok(Jail {
            base: self.chroot_base_dir,
            exec_name: exec_name(&self.exec_file)?,
            id,
        })
    }
}

impl Arguments {
    fn check(self, pass_through: Vec<OsString>) -> Result<Action, String> {
        if self.version {
            let version = env!("CARGO_PKG_VERSION");
            return Ok(Action::Print(format!("Bantam jailer v{version}\n")));
        }
        let id = needed("--id", self.id)?;
        check_id(&id)?;
        let exec_file = needed("--exec-file", self.exec_file)?;
        let exec_name = exec_name(&exec_file)?;
        let (uid, gid, allot) = user(self.uid, self.gid, self.uid_range.as_deref())?;
        if self.config_file.is_some() && pass_through.iter().any(|word| word == "--config-file") {
            return Err(
                "--config-file is given before and after `--`: give it once, before `--` with paths of the host, or \
                 after it with paths of the jail"
                    .into(),
            );
        }
        let cgroup = cgroup::Request::parse(
            &self.cgroup,
            self.cgroup_version.as_deref(),
            self.parent_cgroup.as_deref(),
            &exec_name,
        )?;
        Ok(Action::Start(Box::new(Options {
            id,
            exec_file,
            exec_name,
            allot,
            cgroup,
            process: Process {
                daemonize: self.daemonize,
                new_pid_ns: self.new_pid_ns,
                new_user_ns: self.new_user_ns,
                ..Process::default()
            },
            owner: Owner {
                uid: Uid::from_raw(uid),
                gid: Gid::from_raw(gid),
            },
            base_given: self.chroot_base_dir.is_some(),
            base: self.chroot_base_dir.unwrap_or_else(|| DEFAULT_BASE.into()),
            netns: self.netns,
            config_file: self.config_file,
            copy_of: None,
            limits: Limits::parse(&self.resource_limit)?,
            pass_through,
        })))
    }
}

/// Returns the user and the group, and the range from which they are taken instead with `--uid auto`.
fn user(
    uid: Option<String>,
    gid: Option<u32>,
    range: Option<&str>,
) -> Result<(u32, u32, Option<uids::Range>), String> {
    let uid = needed("--uid", uid)?;
    if uid == "auto" {
        if let Some(gid) = gid {
            return Err(format!(
                "--gid {gid}: leave it out; with `--uid auto` the group id equals the user id"
            ));
        }
        return Ok((0, 0, Some(uids::Range::parse(range)?)));
    }
    if range.is_some() {
        return Err("--uid-range is for `--uid auto`".into());
    }
    let number = uid.parse::<u32>();
    let uid = number.map_err(|_| format!("--uid {uid}: write a number, or `auto`"))?;
    let gid = needed("--gid", gid)?;
    for (flag, number) in [("--uid", uid), ("--gid", gid)] {
        // The kernel reads this number as "unchanged".
        if number == u32::MAX {
            return Err(format!("{flag} {number}: must be less than {number}"));
        }
    }
    Ok((uid, gid, None))
}

fn needed<T>(flag: &str, value: Option<T>) -> Result<T, String> {
    value.ok_or_else(|| {
        format!(
            "{flag} is missing: jailer --id ID --exec-file BANTAM --uid N --gid N \
             [--config-file vm.json] [-- ARGUMENTS] (see --help)"
        )
    })
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod cli_test;
