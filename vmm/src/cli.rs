//! The command line of `bantam`.

use argh::FromArgs;
use log::LevelFilter;
use std::ffi::OsString;
use std::path::PathBuf;

/// What the command line asks for.
#[derive(Debug)]
pub enum Action {
    /// Run a guest.
    Run(Options),
    /// Print this and end with status 0.
    Print(String),
}

/// A guest to run, and how.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// The guest's JSON file.
    pub config_file: PathBuf,
    /// Whether the user knows that no API is served.
    pub no_api: bool,
    /// Whether the guest's boot is timed.
    pub boot_timer: bool,
    /// CLOCK_MONOTONIC in microseconds when the jailer started, if it said.
    pub start_time_us: Option<u64>,
    /// Which messages are printed.
    pub level: LevelFilter,
}

/// Boots a guest on Linux KVM from its JSON file, with its console on this terminal. Ctrl-A x quits.
#[derive(FromArgs)]
#[argh(
    example = "bantam --no-api --config-file vm.json\n\nvm.json:\n{{\n  \"boot-source\": {{\"kernel_image_path\": \"vmlinuz\", \"initrd_path\": \"initrd.img\",\n                  \"boot_args\": \"console=ttyS0\"}},\n  \"drives\": [{{\"drive_id\": \"root\", \"is_root_device\": true, \"path_on_host\": \"root.ext4\",\n              \"cache_type\": \"Writeback\"}}],\n  \"machine-config\": {{\"vcpu_count\": 2, \"mem_size_mib\": 512}},\n  \"network-interfaces\": [{{\"iface_id\": \"eth0\", \"host_dev_name\": \"tap0\"}}]\n}}",
    note = "Disks are raw images or block devices; taps are made with `ip tuntap`, or by `jailer`, which\ncreates image, bridge and tap from the same file and takes every privilege away.\nOn the console, Ctrl-A x quits and Ctrl-A Ctrl-A sends a Ctrl-A.",
    error_code(0, "the guest powered off or reset"),
    error_code(1, "the host refused something, e.g. /dev/kvm"),
    error_code(2, "the monitor failed"),
    error_code(3, "to 127: the payload's own, written to port 0xf4"),
    error_code(152, "the configuration or a file it names cannot be used"),
    error_code(153, "bad arguments"),
    error_code(160, "the guest's kernel panicked"),
    error_code(161, "KVM could not enter the guest"),
    error_code(162, "KVM met an internal error")
)]
struct Arguments {
    /// the guest's JSON file
    #[argh(option)]
    config_file: Option<PathBuf>,
    /// serve no API socket: this version has none, and says so without this
    #[argh(switch)]
    no_api: bool,
    /// path of the API socket; not supported by this version
    #[argh(option)]
    api_sock: Option<PathBuf>,
    /// name of the guest in messages, letters, digits and `-` (anonymous-instance)
    #[argh(option, default = "\"anonymous-instance\".into()")]
    id: String,
    /// time the guest's boot: its init writes 123 to the byte at 0xc0000000
    #[argh(switch)]
    boot_timer: bool,
    /// messages to print: off, error, warning, info, debug or trace (warning)
    #[argh(option, default = "\"warning\".into()")]
    level: String,
    /// CLOCK_MONOTONIC in microseconds at the jailer's start
    #[argh(option)]
    start_time_us: Option<u64>,
    /// CPU time in microseconds at the jailer's start; accepted for compatibility
    #[argh(option, arg_name = "us")]
    #[expect(dead_code, reason = "clients pass it, nothing asks for it yet")]
    start_time_cpu_us: Option<u64>,
    /// CPU time in microseconds of the jailer; accepted for compatibility
    #[argh(option, arg_name = "us")]
    #[expect(dead_code, reason = "clients pass it, nothing asks for it yet")]
    parent_cpu_time_us: Option<u64>,
    /// print the version
    #[argh(switch)]
    version: bool,
}

/// Reads the command line, the program's name first.
///
/// # Errors
/// What to print for the user, who gets status 153.
pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Action, String> {
    let mut words = Vec::new();
    for argument in arguments {
        let word = argument.into_string();
        words.push(word.map_err(|bad| format!("bantam: error: {bad:?} is not UTF-8"))?);
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let rest = words.get(1..).unwrap_or_default();
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
            return Ok(Action::Print(format!(
                "Bantam v{}\n",
                env!("CARGO_PKG_VERSION")
            )));
        }
        let id_char = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.id.is_empty() || self.id.len() > 64 || !self.id.chars().all(id_char) {
            return Err(format!(
                "--id {}: use 1 to 64 letters, digits and `-`",
                self.id
            ));
        }
        let Some(config_file) = self.config_file else {
            return Err(
                "name the guest's JSON file: bantam --config-file vm.json (see --help)".into(),
            );
        };
        if self.no_api && self.api_sock.is_some() {
            return Err("--no-api and --api-sock exclude each other".into());
        }
        if let Some(path) = self.api_sock {
            // A client would wait for the socket for ever.
            return Err(format!(
                "--api-sock {}: this version serves no API: start guests with --config-file and --no-api",
                path.display()
            ));
        }
        let level = match self.level.to_ascii_lowercase().as_str() {
            "warn" | "warning" => LevelFilter::Warn,
            other => other.parse().map_err(|_| {
                format!("--level {other}: use off, error, warning, info, debug or trace")
            })?,
        };
        Ok(Action::Run(Options {
            config_file,
            no_api: self.no_api,
            boot_timer: self.boot_timer,
            start_time_us: self.start_time_us,
            level,
        }))
    }
}

#[cfg(test)]
#[path = "cli_test.rs"]
mod cli_test;
