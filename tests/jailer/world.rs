//! A test's host: a network, mounts and a file system of its own, and its state, in which leftovers of a start would
//! show.

#![allow(dead_code, reason = "each suite uses a part of it")]

use crate::harness::{bantam, payload, sh};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The guest's user and group.
pub const UID: u32 = 31234;
pub const GID: u32 = 31235;
pub const MIB: u64 = 1 << 20;
/// Time limit of a guest of a few instructions.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A test's host.
pub struct World {
    pub dir: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(own).expect("namespaces: run as root");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().display();
        sh(&format!(
            "mount --make-rprivate /; mount -t tmpfs -o mode=755 tmpfs {path}; mkdir {path}/base; \
             for own in /run/bantam /run/netns /run/systemd /etc/bantam /var/log/bantam /srv/jailer \
                 /etc/systemd/system; do \
                 mkdir -p $own; mount -t tmpfs -o mode=755 tmpfs $own; \
             done"
        ));
        install_units();
        let world = Self { dir };
        // A payload that prints that it is up, and halts.
        let up = [payload::print("up\n"), vec![0xf4, 0xeb, 0xfd]].concat();
        fs::rename(payload::write(world.dir.path(), &up), world.path("up")).unwrap();
        let exit = payload::exit(42);
        fs::rename(payload::write(world.dir.path(), &exit), world.path("exit")).unwrap();
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn root(&self, id: &str) -> PathBuf {
        self.path(&format!("base/bantam/{id}/root"))
    }

    /// Writes the guest's configuration: its kernel, and further sections.
    pub fn config(&self, kernel: &str, more: &Value) {
        let mut config = json!({
            "boot-source": {"kernel_image_path": self.path(kernel)}, "drives": [],
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 32},
        });
        let more = more.as_object().expect("sections").clone();
        config.as_object_mut().expect("sections").extend(more);
        fs::write(self.path("vm.json"), config.to_string()).unwrap();
    }

    pub fn drive(&self, id: &str, image: &str, more: &Value) -> Value {
        let mut drive = json!({
            "drive_id": id, "is_root_device": false, "path_on_host": self.path(image),
        });
        let more = more.as_object().expect("keys").clone();
        drive.as_object_mut().expect("keys").extend(more);
        drive
    }

    pub fn jailer(&self, id: &str) -> Command {
        self.jailer_of(id, Path::new(bantam()))
    }

    pub fn jailer_of(&self, id: &str, monitor: &Path) -> Command {
        let mut command = Command::new(jailer());
        command.args(["--id", id, "--exec-file"]).arg(monitor);
        command.args(["--uid", &UID.to_string(), "--gid", &GID.to_string()]);
        command.arg("--chroot-base-dir").arg(self.path("base"));
        command.stdin(Stdio::null());
        command
    }

    /// Starts the guest of [`Self::config`] and waits for its first line.
    pub fn start(&self, id: &str) -> Running {
        let mut command = self.jailer(id);
        command.arg("--config-file").arg(self.path("vm.json"));
        command.args(["--", "--no-api"]);
        command.stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = [0; 3];
        let read = child.stdout.as_mut().unwrap().read_exact(&mut line);
        let running = Running(child);
        read.expect("the guest did not start");
        assert_eq!(&line, b"up\n");
        running
    }

    /// Runs the guest of [`Self::config`] to its end.
    pub fn run(&self, id: &str) -> Output {
        let mut command = self.jailer(id);
        command.arg("--config-file").arg(self.path("vm.json"));
        output(command.args(["--", "--no-api"]))
    }

    /// Runs `jailer clean` for the guest `id`.
    pub fn clean(&self, id: &str) -> Output {
        let mut command = Command::new(jailer());
        command.args(["clean", "--id", id, "--chroot-base-dir"]);
        output(command.arg(self.path("base")))
    }

    /// Returns the state of this host that a start could change.
    pub fn state(&self) -> String {
        let mut state = tree(self.dir.path());
        state.extend(links());
        state.extend(mounts("/proc/thread-self/mountinfo"));
        state.join("\n")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        sh(&format!("umount -l {}", self.dir.path().display()));
    }
}

/// A guest that ends with its test.
pub struct Running(pub Child);

impl Running {
    pub fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0.id()))
    }

    pub fn terminate(mut self) {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM).unwrap();
        assert_eq!(self.0.wait().unwrap().signal(), Some(15));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn jailer() -> PathBuf {
    beside("jailer")
}

pub fn bantamctl() -> PathBuf {
    beside("bantamctl")
}

/// A program of the crate `jailer`, beside the monitor.
fn beside(name: &str) -> PathBuf {
    let path = Path::new(bantam()).with_file_name(name);
    let shown = path.display();
    assert!(
        path.exists(),
        "{shown} is missing: run `cargo build -p jailer`"
    );
    path
}

/// Installs the units as the package does, with the program under test in place of the installed one.
pub fn install_units() {
    let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("../resources/systemd");
    sh(&format!(
        "cd {}; for unit in *; do sed 's|/usr/bin/bantamctl|{}|' $unit >/etc/systemd/system/$unit; done",
        units.display(),
        bantamctl().display()
    ));
}

/// Runs `command` to its end, bounded in time.
pub fn output(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    child.wait_with_output().unwrap()
}

/// Fails unless the command exited with `status`; returns its standard error.
pub fn expect(output: &Output, status: i32) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{text}");
    text
}

pub fn contains(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
}

/// Returns all names below `path` with mode, owner and size.
pub fn tree(path: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        let m = path.symlink_metadata().unwrap();
        let (mode, owner) = (m.mode(), (m.uid(), m.gid()));
        found.push(format!("{} {mode:o} {owner:?} {}", path.display(), m.len()));
        if m.is_dir() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

/// Returns the network devices, each with its bridge and whether it is up.
pub fn links() -> Vec<String> {
    let links = sh("ip -o link show");
    let links = links.lines().map(|line| {
        let mut words = line.split_whitespace();
        let name = words.nth(1).unwrap().trim_end_matches(':');
        let flags = words.next().unwrap();
        let up = flags.split(['<', ',', '>']).any(|flag| flag == "UP");
        let bridge = words.skip_while(|word| *word != "master").nth(1);
        format!("{name} up={up} bridge={}", bridge.unwrap_or("none"))
    });
    links.collect()
}

/// Returns the mount points, each with its options.
pub fn mounts(path: impl AsRef<Path>) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| {
        let words: Vec<_> = line.split(' ').collect();
        format!("{} {}", words[4], words[5])
    });
    lines.collect()
}
