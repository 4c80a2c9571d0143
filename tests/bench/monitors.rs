//! The monitors of this machine, and their command lines for the same guest.
//!
//! All get one vCPU, no drive, no interface, and a serial console on standard output. What is switched off in one monitor
//! (seccomp filters, a control socket) is switched off in all that have it. Each is started in its fastest way: QEMU with its
//! microvm, without option ROMs and legacy timers.

use crate::Failure;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The monitors, where they differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Bantam,
    Firecracker,
    CloudHypervisor,
    Qemu,
}

/// A monitor of this machine.
#[derive(Clone, Debug)]
pub struct Monitor {
    pub kind: Kind,
    pub name: &'static str,
    pub program: PathBuf,
}

/// A guest of one vCPU.
#[derive(Clone, Debug)]
pub struct Guest {
    pub kernel: PathBuf,
    pub initrd: Option<PathBuf>,
    pub args: String,
    pub mem_mib: u32,
}

/// Kind, name, environment variable with the program's path, and name of the program on PATH.
const KNOWN: [(Kind, &str, &str, &str); 4] = [
    (Kind::Bantam, "Bantam", "BANTAM", "bantam"),
    (
        Kind::Firecracker,
        "Firecracker",
        "FIRECRACKER",
        "firecracker",
    ),
    (
        Kind::CloudHypervisor,
        "Cloud Hypervisor",
        "CLOUD_HYPERVISOR",
        "cloud-hypervisor",
    ),
    (Kind::Qemu, "QEMU microvm", "QEMU", "qemu-system-x86_64"),
];

/// Finds Bantam and the peers that are installed.
pub fn find() -> Result<Vec<Monitor>, Failure> {
    let mut found = Vec::new();
    for (kind, name, variable, program) in KNOWN {
        let named = std::env::var_os(variable).filter(|path| !path.is_empty());
        let program = match named {
            Some(path) if Path::new(&path).is_file() => Some(fs::canonicalize(path)?),
            Some(path) => return Err(format!("{variable}={} is no file", path.display()).into()),
            None => on_path(program),
        };
        match program {
            Some(program) => found.push(Monitor {
                kind,
                name,
                program,
            }),
            None if kind == Kind::Bantam => return Err("BANTAM names no monitor".into()),
            None => eprintln!("bench: {name} is not here (set {variable} to its program)"),
        }
    }
    Ok(found)
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(program))
        .find(|path| path.is_file())
}

impl Monitor {
    /// Returns the command that runs `guest`. `dir` is for its files.
    pub fn command(&self, guest: &Guest, dir: &Path) -> Result<Command, Failure> {
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Bantam => {
                command.args(["--no-api", "--no-seccomp", "--config-file"]);
                command.arg(self.config_file(guest, dir)?);
            }
            Kind::Firecracker => {
                // Messages would be mixed with the console.
                command.args(["--no-api", "--no-seccomp", "--level", "Error"]);
                command
                    .arg("--config-file")
                    .arg(self.config_file(guest, dir)?);
            }
            Kind::CloudHypervisor => {
                command.args(["--seccomp", "false", "--console", "off", "--serial", "tty"]);
                command.args(["--cpus", "boot=1"]);
                command.args(["--memory", &format!("size={}M", guest.mem_mib)]);
                command.arg("--kernel").arg(&guest.kernel);
                command.args(["--cmdline", &guest.args]);
                if let Some(initrd) = &guest.initrd {
                    command.arg("--initramfs").arg(initrd);
                }
            }
            Kind::Qemu => {
                let machine = "microvm,acpi=on,pit=off,pic=off,rtc=off,x-option-roms=off";
                // A feature of the host that an interpreting KVM offers and then refuses.
                let cpu = "host,-arch-capabilities";
                command.args(["-machine", machine, "-accel", "kvm", "-cpu", cpu]);
                command.args(["-nodefaults", "-no-user-config", "-no-reboot"]);
                command.args(["-display", "none", "-serial", "stdio", "-smp", "1"]);
                command.args(["-m", &guest.mem_mib.to_string()]);
                command.arg("-kernel").arg(&guest.kernel);
                command.args(["-append", &guest.args]);
                if let Some(initrd) = &guest.initrd {
                    command.arg("-initrd").arg(initrd);
                }
            }
        }
        Ok(command)
    }

    /// Returns the JSON that Bantam and Firecracker both read.
    fn config_file(&self, guest: &Guest, dir: &Path) -> Result<PathBuf, Failure> {
        let mut boot = serde_json::json!({
            "kernel_image_path": guest.kernel,
            "boot_args": guest.args,
        });
        if let (Some(initrd), Some(boot)) = (&guest.initrd, boot.as_object_mut()) {
            boot.insert("initrd_path".into(), serde_json::json!(initrd));
        }
        let config = serde_json::json!({
            "boot-source": boot,
            "drives": [],
            "machine-config": {"vcpu_count": 1, "mem_size_mib": guest.mem_mib},
        });
        let path = dir.join(format!("{:?}.json", self.kind));
        fs::write(&path, config.to_string())?;
        Ok(path)
    }

    /// Returns the monitor's version.
    pub fn version(&self) -> String {
        let output = Command::new(&self.program).arg("--version").output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().next().unwrap_or("unknown").trim().to_owned()
    }

    /// Returns the environment variable with the program's path.
    pub fn variable(&self) -> &'static str {
        let known = KNOWN.iter().find(|(kind, ..)| *kind == self.kind);
        known.map_or("", |(_, _, variable, _)| variable)
    }

    /// Returns true if every version of the monitor boots Debian's bzImage.
    pub fn boots_bzimage(&self) -> bool {
        self.kind != Kind::Firecracker
    }

    /// Returns true if the monitor boots the guest again at a reset instead of ending.
    pub fn goes_on_at_reset(&self) -> bool {
        self.kind == Kind::CloudHypervisor
    }

    /// Returns the name for use in file names.
    pub fn file_stem(&self) -> OsString {
        format!("{:?}", self.kind).into()
    }
}
