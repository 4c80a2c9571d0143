//! Tools of the end-to-end suites: guests that are described in a few words, run with the real programs, and are bounded in
//! time. Each suite is a test target of the package `vmm` and includes this module.
//!
//! A suite runs on a host with real KVM, which `kvm-host.sh` provides and announces in the environment. Without it the
//! tests fail, because a run without KVM is not a pass.

#![allow(dead_code, reason = "each suite uses a part of it")]

pub mod chance;
pub mod counting;
pub mod fault_handler;
pub mod http;
pub mod journal;
pub mod lifecycle;
pub mod network;
pub mod payload;
pub mod saved;
pub mod volatile_disk;
pub mod vsock;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Time limit of a guest. A guest on an emulated host is up in ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// Returns the path of the monitor under test.
pub fn bantam() -> &'static str {
    env!("CARGO_BIN_EXE_bantam")
}

/// Fails unless real KVM is available.
pub fn needs_kvm() {
    assert_eq!(
        std::env::var("BANTAM_ON_KVM").as_deref(),
        Ok("1"),
        "this test needs a host with real KVM: run `make test`"
    );
}

/// Records the current work for the harness, in case the host does not return.
pub fn announce(what: &str) {
    if let Ok(dir) = std::env::var("BANTAM_KVM_DIR") {
        let _ = fs::write(Path::new(&dir).join("current"), what);
    }
}

/// Returns the path of a file that `resources/guest/build.sh` builds.
pub fn image(name: &str) -> PathBuf {
    let dir = std::env::var_os("BANTAM_GUEST_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/guest"),
        PathBuf::from,
    );
    let path = dir.join(name);
    assert!(
        path.exists(),
        "{} is missing: run `resources/guest/build.sh --fio --disk cloud generic backport`",
        path.display()
    );
    path.canonicalize().unwrap()
}

/// Returns a count that `make soak` raises.
pub fn rounds(reduced: u32, full: u32) -> u32 {
    match std::env::var("BANTAM_SOAK").as_deref() {
        Ok("1") => full,
        _ => reduced,
    }
}

/// A guest before its start.
pub struct Guest {
    dir: tempfile::TempDir,
    kernel: PathBuf,
    initrd: Option<PathBuf>,
    args: String,
    vcpus: u8,
    mem_mib: u32,
    drives: Vec<serde_json::Value>,
    interfaces: Vec<serde_json::Value>,
    /// Further sections of the file.
    sections: serde_json::Map<String, serde_json::Value>,
    /// Further keys of `machine-config`.
    machine: serde_json::Value,
    /// Whether the API is served, at `api.sock` in the guest's directory.
    api: bool,
    /// Actions from which the guest is exempt.
    spared: lifecycle::Spared,
}

impl Guest {
    /// A guest with Debian's kernel `flavour` as `form` (`vmlinuz` or `vmlinux`), one vCPU and 256 MiB.
    pub fn new(flavour: &str, form: &str) -> Self {
        Self {
            kernel: image(&format!("{form}-{flavour}")),
            initrd: Some(image(&format!("initrd-{flavour}.img"))),
            ..Self::bare(Path::new("/nonexistent"))
        }
    }

    /// A guest with the cloud kernel, for tests that are not about kernels.
    pub fn cloud() -> Self {
        Self::new("cloud", "vmlinuz")
    }

    /// A guest with a kernel of the test.
    pub fn bare(kernel: &Path) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            kernel: kernel.to_owned(),
            initrd: None,
            args: "console=ttyS0 quiet".into(),
            vcpus: 1,
            mem_mib: 256,
            drives: Vec::new(),
            interfaces: Vec::new(),
            sections: serde_json::Map::new(),
            machine: serde_json::json!({}),
            api: false,
            spared: lifecycle::Spared::default(),
        }
    }

    /// Returns the guest's directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn vcpus(mut self, vcpus: u8) -> Self {
        self.vcpus = vcpus;
        self
    }

    pub fn mem_mib(mut self, mem_mib: u32) -> Self {
        self.mem_mib = mem_mib;
        self
    }

    pub fn entropy(self) -> Self {
        self.section("entropy", serde_json::json!({}))
    }

    /// Adds a section to the file.
    pub fn section(mut self, name: &str, value: serde_json::Value) -> Self {
        self.sections.insert(name.into(), value);
        self
    }

    /// Adds keys to `machine-config`.
    pub fn machine(mut self, keys: serde_json::Value) -> Self {
        self.machine = keys;
        self
    }

    /// Serves the API.
    pub fn api(mut self) -> Self {
        self.api = true;
        self
    }

    /// Adds parameters to the kernel's command line.
    pub fn args(mut self, args: &str) -> Self {
        self.args = format!("{} {args}", self.args);
        self
    }

    /// Adds a shell script for the guest. Its status becomes the monitor's.
    pub fn script(self, script: &str) -> Self {
        let path = self.script_image();
        write_script(&path, script);
        self.drive("script", &path, serde_json::json!({"is_read_only": true}))
    }

    fn script_image(&self) -> PathBuf {
        self.dir.path().join("script.img")
    }

    /// Adds a drive with further keys.
    pub fn drive(mut self, id: &str, path: &Path, more: serde_json::Value) -> Self {
        let mut drive = serde_json::json!({
            "drive_id": id, "is_root_device": false, "path_on_host": path,
        });
        let more = more.as_object().expect("keys").clone();
        drive.as_object_mut().expect("keys").extend(more);
        self.drives.push(drive);
        self
    }

    /// Adds an empty image, to which the guest's flushes go.
    pub fn scratch(self, id: &str, bytes: u64) -> Self {
        let path = self.dir.path().join(format!("{id}.img"));
        File::create(&path).unwrap().set_len(bytes).unwrap();
        self.drive(id, &path, serde_json::json!({"cache_type": "Writeback"}))
    }

    /// Adds the image's root file system with its tools, read-only: guests share the file.
    pub fn root(self, flavour: &str) -> Self {
        let more = serde_json::json!({"is_root_device": true, "is_read_only": true});
        self.drive("root", &image(&format!("rootfs-{flavour}.ext4")), more)
    }

    /// Adds an interface on `tap`.
    pub fn interface(self, tap: &str) -> Self {
        self.interface_with(tap, serde_json::json!({}))
    }

    /// Adds an interface on `tap` with further keys.
    pub fn interface_with(mut self, tap: &str, more: serde_json::Value) -> Self {
        let n = self.interfaces.len();
        let mut interface = serde_json::json!({
            "iface_id": format!("eth{n}"), "host_dev_name": tap,
        });
        let more = more.as_object().expect("keys").clone();
        interface.as_object_mut().expect("keys").extend(more);
        self.interfaces.push(interface);
        self
    }

    /// Writes the JSON file. Returns its path.
    pub fn write_config(&self) -> PathBuf {
        let mut config = serde_json::json!({
            "boot-source": {
                "kernel_image_path": self.kernel,
                "initrd_path": self.initrd,
                "boot_args": self.args,
            },
            "drives": self.drives,
            "network-interfaces": self.interfaces,
            "machine-config": {"vcpu_count": self.vcpus, "mem_size_mib": self.mem_mib},
        });
        let config = config.as_object_mut().expect("keys");
        config.extend(self.sections.clone());
        let machine = config["machine-config"].as_object_mut().expect("keys");
        machine.extend(self.machine.as_object().expect("keys").clone());
        let path = self.dir.path().join("vm.json");
        fs::write(&path, serde_json::Value::from(config.clone()).to_string()).unwrap();
        path
    }

    /// Starts the monitor without a terminal.
    pub fn start(self) -> Running {
        self.start_under(Command::new(bantam()))
    }

    /// Starts `command`, which is the monitor or a tool that runs it, with the monitor's arguments.
    pub fn start_under(mut self, mut command: Command) -> Running {
        let schedule = self.schedule();
        let config = self.write_config();
        let console = self.dir.path().join("console");
        let messages = self.dir.path().join("messages");
        if self.api {
            command
                .arg("--api-sock")
                .arg(self.dir.path().join("api.sock"))
                // By default messages go to standard output, where the console is.
                .arg("--log-path")
                .arg(&messages);
        } else {
            command.arg("--no-api");
        }
        let child = command
            .arg("--config-file")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(File::create(&console).unwrap())
            .stderr(File::create(&messages).unwrap())
            .spawn()
            .unwrap();
        Running {
            child,
            guest: Some(self),
            started: Instant::now(),
            schedule,
        }
    }

    /// Runs the guest to its end.
    pub fn run(self) -> Ended {
        self.start().wait()
    }
}

/// A running guest with its monitor.
pub struct Running {
    pub child: Child,
    /// `None` once the guest has ended.
    guest: Option<Guest>,
    started: Instant,
    /// Actions on the guest while its test runs.
    schedule: lifecycle::Schedule,
}

/// Ends the guest of a failed test, so that it does not run beside the next test's.
impl Drop for Running {
    fn drop(&mut self) {
        if self.guest.is_some() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        if !std::thread::panicking() {
            self.schedule.check();
        }
    }
}

impl Running {
    /// Sends an API request. Returns the status and the body.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        http::ask(&self.dir().join("api.sock"), method, path, body)
    }

    /// Sends an API request that must succeed. Returns the body.
    pub fn api(&self, method: &str, path: &str, body: serde_json::Value) -> String {
        let body = match body {
            serde_json::Value::Null => String::new(),
            body => body.to_string(),
        };
        let (status, answer) = self.ask(method, path, &body);
        let good = matches!(status, 200 | 204);
        assert!(
            good,
            "{method} {path} {body}: {status} {answer}\n{}",
            self.report()
        );
        answer
    }

    /// Saves the paused guest to files of this name in its directory.
    pub fn save(&self, name: &str, kind: &str) {
        self.api("PUT", "/snapshot/create", self.snapshot(name, kind));
    }

    /// Returns the request body that saves the guest to files of this name.
    fn snapshot(&self, name: &str, kind: &str) -> serde_json::Value {
        let [state, memory] = self.snapshot_files(name);
        serde_json::json!({
            "snapshot_path": state, "mem_file_path": memory, "snapshot_type": kind,
        })
    }

    fn snapshot_files(&self, name: &str) -> [PathBuf; 2] {
        ["state", "memory"].map(|part| self.dir().join(format!("{name}.{part}")))
    }

    /// Ends the monitor, and restores the snapshot of this name in another one, with further keys in the request.
    pub fn restore(mut self, name: &str, more: serde_json::Value) -> Self {
        self.go_on_from(name, more);
        self.started = Instant::now();
        self
    }

    fn go_on_from(&mut self, name: &str, more: serde_json::Value) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
        fs::remove_file(self.dir().join("api.sock")).unwrap();
        self.child = self.another("api.sock").spawn().unwrap();
        let [state, memory] = self.snapshot_files(name);
        let mut load = serde_json::json!({
            "snapshot_path": state,
            "mem_backend": {"backend_type": "File", "backend_path": memory},
            "resume_vm": true,
        });
        let more = more.as_object().expect("keys").clone();
        load.as_object_mut().expect("keys").extend(more);
        self.api("PUT", "/snapshot/load", load);
    }

    /// Starts another monitor, which serves the API at `socket` in the guest's directory and continues the console file.
    fn another(&self, socket: &str) -> Command {
        let append = |name: &str| {
            let file = fs::OpenOptions::new()
                .append(true)
                .open(self.dir().join(name));
            file.unwrap()
        };
        let mut command = Command::new(bantam());
        command
            .arg("--api-sock")
            .arg(self.dir().join(socket))
            .arg("--log-path")
            .arg(self.dir().join("messages"))
            .stdin(Stdio::null())
            .stdout(append("console"))
            .stderr(append("messages"));
        command
    }

    /// Returns the resident memory of the monitor and its guest in MiB.
    pub fn resident_mib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            >> 10
    }

    /// Returns the guest's output so far.
    pub fn console(&self) -> String {
        read(&self.dir().join("console"))
    }

    /// Waits until the monitor has logged `text` so many `times`.
    pub fn wait_for_messages(&mut self, text: &str, times: usize) {
        while self.tend() || read(&self.dir().join("messages")).matches(text).count() < times {
            self.bound(&format!("waiting for the message `{text}`"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Returns the guest's directory.
    pub fn dir(&self) -> &Path {
        self.guest.as_ref().expect("a running guest").dir()
    }

    /// Extends the time limit after an action that took long.
    pub fn more_time(&mut self) {
        self.started = Instant::now();
    }

    /// Waits for `text` on the console.
    pub fn wait_for(&mut self, text: &str) {
        while self.tend() || !self.console().contains(text) {
            self.bound(&format!("waiting for `{text}`"));
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(
                    self.console().contains(text),
                    "ended with {status} before `{text}`:\n{}",
                    self.report()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for the guest's end.
    pub fn wait(mut self) -> Ended {
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let status = match (status.code(), status.signal()) {
                    (Some(code), _) => code,
                    (None, signal) => -signal.unwrap_or_default(),
                };
                return Ended {
                    status: self.schedule.status(status, &self.console()),
                    console: self.console(),
                    messages: read(&self.dir().join("messages")),
                    guest: self.guest.take().expect("a running guest"),
                };
            }
            self.tend();
            self.bound("waiting for its end");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the monitor, as a power cut would.
    pub fn kill(mut self) -> Guest {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.guest.take().expect("a running guest")
    }

    fn bound(&mut self, what: &str) {
        if self.started.elapsed() > PATIENCE {
            let _ = self.child.kill();
            let _ = self.child.wait();
            // share.sh looks for these words.
            let silent = match self.console().is_empty() {
                true => ", and the guest never printed a word",
                false => "",
            };
            panic!("time limit passed {what}{silent}:\n{}", self.report());
        }
    }

    /// Returns the console and the messages.
    pub fn report(&self) -> String {
        let messages = read(&self.dir().join("messages"));
        format!("--- console\n{}\n--- messages\n{messages}", self.console())
    }
}

/// The end of a guest.
pub struct Ended {
    /// Exit status of the monitor, or minus the signal that killed it.
    pub status: i32,
    /// Output of the guest.
    pub console: String,
    /// Messages of the monitor.
    pub messages: String,
    /// The guest, with its files.
    pub guest: Guest,
}

impl Ended {
    /// Fails unless the status is `expected`.
    pub fn expect(self, expected: i32) -> Self {
        assert_eq!(
            self.status, expected,
            "--- console\n{}\n--- messages\n{}",
            self.console, self.messages
        );
        self
    }

    /// See [`value`].
    pub fn value(&self, key: &str) -> &str {
        value(&self.console, key)
    }
}

/// The rest of the line of `console` that starts with `key=`.
pub fn value<'c>(console: &'c str, key: &str) -> &'c str {
    let mut lines = console.lines().map(str::trim_end);
    lines
        .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .unwrap_or_else(|| panic!("no `{key}=` on the console:\n{console}"))
}

/// Creates a btrfs file system of `size` (as for truncate(1)) in `file`, for reflinks, and mounts it at `dir`.
pub fn mount_btrfs(file: &Path, size: &str, dir: &Path) {
    let (file, dir) = (file.display(), dir.display());
    sh(&format!(
        "modprobe -a loop btrfs 2>/dev/null || true; truncate -s {size} {file}; mkfs.btrfs -q {file}; mkdir {dir};
         mount -o loop {file} {dir}"
    ));
}

/// Writes `script` to the image of a drive at `path`.
fn write_script(path: &Path, script: &str) {
    let mut file = File::create(path).unwrap();
    file.write_all(script.as_bytes()).unwrap();
    file.set_len((script.len() as u64).next_multiple_of(512))
        .unwrap();
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Runs a command and returns its output. Fails with its messages if it fails.
pub fn sh(command: &str) -> String {
    let output = Command::new("sh").args(["-ec", command]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command}: {}\n{text}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
