//! The command line of `bantam`: Firecracker's flags and Bantam's own.

use super::options::{COMPATIBLE_VERSION, DEFAULT_MAX_BODY, ForkChild, Options, SeccompMode};
use super::snapshot_cli::{self, SnapshotCommand};
use argh::FromArgs;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Default path of the API socket.
const DEFAULT_SOCKET: &str = "/run/firecracker.socket";

/// The action that the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Run a guest.
    Run(Box<Options>),
    /// Report everything wrong with this configuration file.
    Check(PathBuf),
    /// Inspect, verify or merge snapshots.
    Snapshot(SnapshotCommand),
    /// Print the snapshot format's version of this state file.
    DescribeSnapshot(PathBuf),
    /// Print the snapshot format's version that this program writes.
    PrintSnapshotVersion,
    /// Print the built-in seccomp filter.
    PrintSeccompFilter,
    /// Print this text and exit with status 0.
    Print(String),
}

/// Runs a guest on Linux KVM. A JSON file describes the guest, or requests to Firecracker's API on a Unix socket do. The
/// guest's console is this terminal (Ctrl-A x quits).
#[derive(FromArgs)]
#[argh(
    example = "bantam --no-api --config-file vm.json\n\nvm.json:\n{{\n  \"boot-source\": {{\"kernel_image_path\": \"vmlinuz\", \"initrd_path\": \"initrd.img\",\n                  \"boot_args\": \"console=ttyS0\"}},\n  \"drives\": [{{\"drive_id\": \"root\", \"is_root_device\": true, \"path_on_host\": \"root.ext4\",\n              \"cache_type\": \"Writeback\"}}],\n  \"machine-config\": {{\"vcpu_count\": 2, \"mem_size_mib\": 512}},\n  \"network-interfaces\": [{{\"iface_id\": \"eth0\", \"host_dev_name\": \"tap0\"}}]\n}}",
    example = "bantam --api-sock /tmp/api.sock &\ncurl --unix-socket /tmp/api.sock -X PUT http://localhost/boot-source -d '{{\"kernel_image_path\": \"vmlinux\"}}'\ncurl --unix-socket /tmp/api.sock -X PUT http://localhost/actions -d '{{\"action_type\": \"InstanceStart\"}}'\ncurl --unix-socket /tmp/api.sock http://localhost/events",
    note = "Disks are raw images or block devices. `ip tuntap` creates taps. `jailer` creates image, bridge and\ntap from the same file, drops all privileges, and becomes bantam.\n`bantam snapshot --help` shows how to inspect, verify and merge snapshots.\nOn the console, Ctrl-A x quits and Ctrl-A Ctrl-A sends a Ctrl-A.",
    error_code(0, "the guest powered off or reset, or Ctrl-A x quit"),
    error_code(
        1,
        "the host refused something, e.g. /dev/kvm, or a snapshot cannot be used"
    ),
    error_code(2, "the monitor failed"),
    error_code(3, "to 127: the status that the payload wrote to port 0xf4"),
    error_code(148, "the seccomp filter refused a system call"),
    error_code(
        149,
        "to 151, 154, 156, 157: SIGBUS, SIGSEGV, SIGXFSZ, SIGXCPU, SIGHUP, SIGILL"
    ),
    error_code(152, "the configuration, or a file it names, cannot be used"),
    error_code(153, "bad arguments"),
    error_code(160, "the guest's kernel panicked"),
    error_code(161, "KVM could not enter the guest"),
    error_code(162, "KVM met an internal error")
)]
struct Arguments {
    /// the guest's JSON file
    #[argh(option)]
    config_file: Option<PathBuf>,
    /// restore the snapshot in this directory (files `state` and `memory`)
    #[argh(option)]
    restore: Option<PathBuf>,
    /// read ahead the pages that the restored guest touches first; the first restore records them beside the memory file
    #[argh(switch)]
    prefetch: bool,
    /// serve no API socket; needs --config-file, --restore or --fork-socket
    #[argh(switch)]
    no_api: bool,
    /// wait at this socket for a copy of another guest (PUT /vm/fork)
    #[argh(option, arg_name = "path")]
    fork_socket: Option<PathBuf>,
    /// file for the copy of the other guest's drive ID, on the same btrfs or XFS; ID=PATH, may be repeated
    #[argh(option, arg_name = "id=path")]
    fork_drive: Vec<String>,
    /// open tap for the other guest's interface ID; ID=DESCRIPTOR, may be repeated
    #[argh(option, arg_name = "id=descriptor")]
    fork_tap: Vec<String>,
    /// exit if the other end of this open pipe is closed before the copy arrives
    #[argh(option, arg_name = "descriptor")]
    fork_lifeline: Option<RawFd>,
    /// path of the API socket (/run/firecracker.socket)
    #[argh(option)]
    api_sock: Option<PathBuf>,
    /// guest's name in messages and answers: letters, digits and `-` (anonymous-instance)
    #[argh(option, default = "\"anonymous-instance\".into()")]
    id: String,
    /// report everything wrong with --config-file and the files it names, and exit
    #[argh(switch)]
    check: bool,
    /// JSON file with metadata for the guest
    #[argh(option)]
    metadata: Option<PathBuf>,
    /// file with the allowed system calls, instead of the built-in list
    #[argh(option)]
    seccomp_filter: Option<PathBuf>,
    /// allow all system calls; not recommended
    #[argh(switch)]
    no_seccomp: bool,
    /// print the built-in list of system calls, as a start for --seccomp-filter
    #[argh(switch)]
    print_seccomp_filter: bool,
    /// time the guest's boot: its init writes 123 to the byte at 0xc0000000
    #[argh(switch)]
    boot_timer: bool,
    /// file or FIFO for messages, instead of standard output (with an API) or standard error
    #[argh(option)]
    log_path: Option<PathBuf>,
    /// lowest level to print: off, error, warning, info, debug or trace (info; warning without API and log file)
    #[argh(option)]
    level: Option<String>,
    /// print only messages of this module, e.g. devices::net
    #[argh(option)]
    module: Option<String>,
    /// print the level of each message
    #[argh(switch)]
    show_level: bool,
    /// print the source file and line of each message
    #[argh(switch)]
    show_log_origin: bool,
    /// file or FIFO for metrics
    #[argh(option)]
    metrics_path: Option<PathBuf>,
    /// limit of a request's body in bytes (51200)
    #[argh(option, default = "DEFAULT_MAX_BODY")]
    http_api_max_payload_size: usize,
    /// limit of the metadata in bytes (as --http-api-max-payload-size)
    #[argh(option)]
    mmds_size_limit: Option<usize>,
    /// accepted for compatibility: this version has its devices on virtio-mmio
    #[argh(switch)]
    enable_pci: bool,
    /// print the version of the snapshot format
    #[argh(switch)]
    snapshot_version: bool,
    /// print the snapshot format's version of this state file
    #[argh(option)]
    describe_snapshot: Option<PathBuf>,
    /// CLOCK_MONOTONIC in microseconds when the jailer started
    #[argh(option)]
    start_time_us: Option<u64>,
    /// CPU time in microseconds when the process started
    #[argh(option, arg_name = "us")]
    start_time_cpu_us: Option<u64>,
    /// CPU time in microseconds that the jailer used
    #[argh(option, arg_name = "us")]
    parent_cpu_time_us: Option<u64>,
    /// print the version
    #[argh(switch)]
    version: bool,
}

/// Parses the command line, which begins with the program's name.
///
/// # Errors
/// The message for the user. The exit status is 153.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Action, String> {
    let mut words = Vec::new();
    for argument in arguments {
        let word = argument.into_string();
        words.push(word.map_err(|bad| format!("bantam: error: {bad:?} is not UTF-8"))?);
    }
    let words = words.iter().map(|word| match word.as_str() {
        "-h" => "--help",
        word => word,
    });
    let words: Vec<&str> = words.collect();
    let rest = words.get(1..).unwrap_or_default();
    if let Some(("snapshot", rest)) = rest.split_first().map(|(first, rest)| (*first, rest)) {
        return match snapshot_cli::parse(rest) {
            Ok(snapshot_cli::Parsed::Run(command)) => Ok(Action::Snapshot(command)),
            Ok(snapshot_cli::Parsed::Print(text)) => Ok(Action::Print(text)),
            Err(message) => Err(format!("bantam: error: {message}")),
        };
    }
    let arguments = match Arguments::from_args(&["bantam"], rest) {
        Ok(arguments) => arguments,
        Err(early) if early.status.is_ok() => return Ok(Action::Print(early.output)),
        Err(early) => return Err(format!("bantam: error: {}", early.output.trim_end())),
    };
    arguments
        .check()
        .map_err(|message| format!("bantam: error: {message}"))
}

impl Arguments {
    fn check(self) -> Result<Action, String> {
        if self.version {
            // Clients parse the first line.
            return Ok(Action::Print(format!(
                "Firecracker v{COMPATIBLE_VERSION}\nBantam v{}\n",
                env!("CARGO_PKG_VERSION")
            )));
        }
        if self.print_seccomp_filter {
            return Ok(Action::PrintSeccompFilter);
        }
        if self.snapshot_version {
            return Ok(Action::PrintSnapshotVersion);
        }
        if let Some(file) = self.describe_snapshot {
            return Ok(Action::DescribeSnapshot(file));
        }
        let id_char = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.id.is_empty() || self.id.len() > 64 || !self.id.chars().all(id_char) {
            return Err(format!(
                "--id {}: use 1 to 64 letters, digits and `-`",
                self.id
            ));
        }
        if self.check {
            let file = self.config_file.ok_or("--check needs --config-file")?;
            return Ok(Action::Check(file));
        }
        if self.no_api && self.api_sock.is_some() {
            return Err("--no-api and --api-sock exclude each other".into());
        }
        if self.restore.is_some() && self.config_file.is_some() {
            return Err("--restore and --config-file exclude each other: a snapshot contains its guest's configuration".into());
        }
        if self.prefetch && self.restore.is_none() {
            return Err("--prefetch needs --restore".into());
        }
        if self.no_api
            && self.config_file.is_none()
            && self.restore.is_none()
            && self.fork_socket.is_none()
        {
            return Err(
                "--no-api needs --config-file: name the guest's JSON file (see --help)".into(),
            );
        }
        if self.fork_socket.is_some() && self.config_file.is_some() {
            return Err("--fork-socket and --config-file exclude each other".into());
        }
        if self.fork_socket.is_none() && !self.fork_drive.is_empty() {
            return Err("--fork-drive needs --fork-socket".into());
        }
        if self.fork_socket.is_none() && !self.fork_tap.is_empty() {
            return Err("--fork-tap needs --fork-socket".into());
        }
        if let Some(lifeline) = self.fork_lifeline {
            if self.fork_socket.is_none() {
                return Err("--fork-lifeline needs --fork-socket".into());
            }
            if lifeline < 3 {
                return Err(format!(
                    "--fork-lifeline {lifeline}: use a descriptor above 2"
                ));
            }
        }
        let taps = self.fork_tap.iter().map(|tap| {
            let parsed = tap.split_once('=').and_then(|(id, number)| {
                let number: RawFd = number.parse().ok()?;
                (!id.is_empty() && number > 2).then(|| (id.to_owned(), number))
            });
            parsed.ok_or_else(|| format!("--fork-tap {tap}: use ID=DESCRIPTOR"))
        });
        let taps = taps.collect::<Result<Vec<_>, _>>()?;
        let images = self
            .fork_drive
            .iter()
            .map(|image| match image.split_once('=') {
                Some((id, path)) if !id.is_empty() && !path.is_empty() => {
                    Ok((id.to_owned(), PathBuf::from(path)))
                }
                _ => Err(format!("--fork-drive {image}: use ID=PATH")),
            });
        let images = images.collect::<Result<Vec<_>, _>>()?;
        let level = self.level.map(|level| level.parse());
        let level = level.transpose().map_err(|e| format!("--level: {e}"))?;
        let seccomp = match (self.seccomp_filter, self.no_seccomp) {
            (Some(_), true) => {
                return Err("--seccomp-filter and --no-seccomp exclude each other".into());
            }
            (Some(file), false) => SeccompMode::File(file),
            (None, true) => SeccompMode::Off,
            (None, false) => SeccompMode::Default,
        };
        let api_sock = self.api_sock.unwrap_or_else(|| DEFAULT_SOCKET.into());
        let max_body = self.http_api_max_payload_size;
        Ok(Action::Run(Box::new(Options {
            api_sock: Some(api_sock).filter(|_| !self.no_api),
            config_file: self.config_file,
            fork: self.fork_socket.map(|socket| ForkChild {
                socket,
                images,
                taps,
                lifeline: self.fork_lifeline,
            }),
            restore: self.restore,
            prefetch: self.prefetch,
            id: self.id,
            metadata: self.metadata,
            seccomp,
            boot_timer: self.boot_timer,
            start_time_us: self.start_time_us,
            start_time_cpu_us: self.start_time_cpu_us,
            parent_cpu_time_us: self.parent_cpu_time_us,
            enable_pci: self.enable_pci,
            logger: resources::Logger {
                log_path: self.log_path,
                level,
                show_level: Some(self.show_level),
                show_log_origin: Some(self.show_log_origin),
                module: self.module,
            },
            metrics_path: self.metrics_path,
            max_body,
            metadata_limit: self.mmds_size_limit.unwrap_or(max_body),
        })))
    }
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod cli_test;
