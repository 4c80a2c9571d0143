//! The monitors of this machine, and how each is told of the same guest.
//!
//! All get the same: one vCPU, no drive, no interface, a serial console on standard output. What is
//! switched off in one (seccomp filters, a control socket) is switched off in all that have it, and
//! each has the faster of its ways: QEMU its microvm without option ROMs and old timers.

use crate::Failure;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which monitor, for what differs.
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

/// Kind, name, the variable that names its program, and what that is called on PATH.
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

/// Bantam, and the peers that are there.
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
    /// The command that runs `guest`; `dir` is for files of its own.
    pub fn command(&self, guest: &Guest, dir: &Path) -> Result<Command, Failure> {
        let mut command = Command::new(&self.program);
        match self.kind {
            Kind::Bantam => {
                command.args(["--no-api", "--no-seccomp", "--config-file"]);
                command.arg(self.config_file(guest, dir)?);
            }
            Kind::Firecracker => {
                // Its messages go to the console's place.
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
                // The one bit of a host's that KVM offers and then refuses where it interprets.
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

    /// The JSON that Bantam and Firecracker both read.
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

    /// What it says of itself.
    pub fn version(&self) -> String {
        let output = Command::new(&self.program).arg("--version").output();
        let text = output.map(|output| output.stdout).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines().next().unwrap_or("unknown").trim().to_owned()
    }

    /// The variable that names its program.
    pub fn variable(&self) -> &'static str {
        let known = KNOWN.iter().find(|(kind, ..)| *kind == self.kind);
        known.map_or("", |(_, _, variable, _)| variable)
    }

    /// Whether every version of it takes the kernel as Debian ships it.
    pub fn boots_bzimage(&self) -> bool {
        self.kind != Kind::Firecracker
    }

    /// Whether it starts the guest anew at a reset instead of ending.
    pub fn goes_on_at_reset(&self) -> bool {
        self.kind == Kind::CloudHypervisor
    }

    /// Its name as part of a file's.
    pub fn file_stem(&self) -> OsString {
        format!("{:?}", self.kind).into()
    }
}
