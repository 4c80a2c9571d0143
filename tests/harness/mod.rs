//! What the end-to-end suites share: guests described in a few words, started with the real binary, and
//! bounded in time. Each suite is a target of the `vmm` package and includes this module.
//!
//! A suite runs on a host with real KVM, which `kvm-host.sh` provides; it says so in the environment.
//! Without it the tests fail: a run that could not use KVM is not a pass.

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

/// How long a guest may take: one on an emulated host is up in ten seconds.
pub const PATIENCE: Duration = Duration::from_secs(150);

/// The monitor under test.
pub fn bantam() -> &'static str {
    env!("CARGO_BIN_EXE_bantam")
}

/// Fails unless KVM is real here.
pub fn needs_kvm() {
    assert_eq!(
        std::env::var("BANTAM_ON_KVM").as_deref(),
        Ok("1"),
        "this test needs a host with real KVM: run `make test`"
    );
}

/// Tells the harness what is being done, should the host not come back.
pub fn announce(what: &str) {
    if let Ok(dir) = std::env::var("BANTAM_KVM_DIR") {
        let _ = fs::write(Path::new(&dir).join("current"), what);
    }
}

/// A file of the guest image, as `resources/guest/build.sh` names it.
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

/// A count that `make soak` raises.
pub fn rounds(reduced: u32, full: u32) -> u32 {
    match std::env::var("BANTAM_SOAK").as_deref() {
        Ok("1") => full,
        _ => reduced,
    }
}

/// A guest to be.
pub struct Guest {
    dir: tempfile::TempDir,
    kernel: PathBuf,
    initrd: Option<PathBuf>,
    args: String,
    vcpus: u8,
    mem_mib: u32,
    drives: Vec<serde_json::Value>,
    interfaces: Vec<serde_json::Value>,
    /// Sections of the file besides those above.
    sections: serde_json::Map<String, serde_json::Value>,
    /// Further keys of `machine-config`.
    machine: serde_json::Value,
    /// Whether the API is served, at `api.sock` in the guest's directory.
    api: bool,
    /// What is not done to it while it runs.
    spared: lifecycle::Spared,
}

impl Guest {
    /// Debian's kernel `flavour` as `form` (`vmlinuz` or `vmlinux`), one vCPU, 256 MiB.
    pub fn new(flavour: &str, form: &str) -> Self {
        Self {
            kernel: image(&format!("{form}-{flavour}")),
            initrd: Some(image(&format!("initrd-{flavour}.img"))),
            ..Self::bare(Path::new("/nonexistent"))
        }
    }

    /// The cloud kernel, unless a test is about kernels.
    pub fn cloud() -> Self {
        Self::new("cloud", "vmlinuz")
    }

    /// A kernel of the test's own.
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

    /// A directory of the guest's own.
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

    /// A section of the file.
    pub fn section(mut self, name: &str, value: serde_json::Value) -> Self {
        self.sections.insert(name.into(), value);
        self
    }

    /// Further keys of `machine-config`.
    pub fn machine(mut self, keys: serde_json::Value) -> Self {
        self.machine = keys;
        self
    }

    /// Serves the API.
    pub fn api(mut self) -> Self {
        self.api = true;
        self
    }

    /// Adds to the kernel's command line.
    pub fn args(mut self, args: &str) -> Self {
        self.args = format!("{} {args}", self.args);
        self
    }

    /// A shell script the guest runs; its status becomes the monitor's.
    pub fn script(self, script: &str) -> Self {
        let path = self.script_image();
        write_script(&path, script);
        self.drive("script", &path, serde_json::json!({"is_read_only": true}))
    }

    fn script_image(&self) -> PathBuf {
        self.dir.path().join("script.img")
    }

    /// A drive, with further keys.
    pub fn drive(mut self, id: &str, path: &Path, more: serde_json::Value) -> Self {
        let mut drive = serde_json::json!({
            "drive_id": id, "is_root_device": false, "path_on_host": path,
        });
        let more = more.as_object().expect("keys").clone();
        drive.as_object_mut().expect("keys").extend(more);
        self.drives.push(drive);
        self
    }

    /// An empty image of the guest's own, flushed to when the guest flushes.
    pub fn scratch(self, id: &str, bytes: u64) -> Self {
        let path = self.dir.path().join(format!("{id}.img"));
        File::create(&path).unwrap().set_len(bytes).unwrap();
        self.drive(id, &path, serde_json::json!({"cache_type": "Writeback"}))
    }

    /// The image's root file system, with its tools, for reading only: guests share the file.
    pub fn root(self, flavour: &str) -> Self {
        let more = serde_json::json!({"is_root_device": true, "is_read_only": true});
        self.drive("root", &image(&format!("rootfs-{flavour}.ext4")), more)
    }

    /// An interface on `tap`.
    pub fn interface(self, tap: &str) -> Self {
        self.interface_with(tap, serde_json::json!({}))
    }

    /// An interface on `tap`, with further keys.
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

    /// Writes the JSON file; returns its path.
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

    /// Starts the monitor with no terminal.
    pub fn start(self) -> Running {
        self.start_under(Command::new(bantam()))
    }

    /// Starts `command` with the monitor's arguments: the monitor, or a tool before it.
    pub fn start_under(mut self, mut command: Command) -> Running {
        let schedule = self.schedule();
        let config = self.write_config();
        let console = self.dir.path().join("console");
        let messages = self.dir.path().join("messages");
        if self.api {
            command
                .arg("--api-sock")
                .arg(self.dir.path().join("api.sock"))
                // Else they are on standard output, where the console is.
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

/// A guest with its monitor.
pub struct Running {
    pub child: Child,
    /// There until the guest has ended.
    guest: Option<Guest>,
    started: Instant,
    /// What is done to it while its test goes on.
    schedule: lifecycle::Schedule,
}

/// A guest whose test failed must not go on beside the next test's.
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
    /// Asks the API; returns the status and the body.
    pub fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        http::ask(&self.dir().join("api.sock"), method, path, body)
    }

    /// Asks the API for something that must work; returns the body.
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

    /// Saves the guest, which is held, to files of this name in its directory.
    pub fn save(&self, name: &str, kind: &str) {
        self.api("PUT", "/snapshot/create", self.snapshot(name, kind));
    }

    /// What the API is told to save the guest to files of this name.
    fn snapshot(&self, name: &str, kind: &str) -> serde_json::Value {
        let [state, memory] = self.snapshot_files(name);
        serde_json::json!({
            "snapshot_path": state, "mem_file_path": memory, "snapshot_type": kind,
        })
    }

    fn snapshot_files(&self, name: &str) -> [PathBuf; 2] {
        ["state", "memory"].map(|part| self.dir().join(format!("{name}.{part}")))
    }

    /// Ends the monitor, and goes on with another one that loads the snapshot of this name, with further keys in
    /// what it is told.
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

    /// Another monitor, which serves the API at `socket` in the guest's directory, and writes on where this one wrote.
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

    /// Resident memory of the monitor, its guest's included, in MiB.
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

    /// What the guest has written so far.
    pub fn console(&self) -> String {
        read(&self.dir().join("console"))
    }

    /// Waits until the monitor has said `text` so many `times`.
    pub fn wait_for_messages(&mut self, text: &str, times: usize) {
        while self.tend() || read(&self.dir().join("messages")).matches(text).count() < times {
            self.bound(&format!("waiting for the message `{text}`"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// A directory of the guest's own.
    pub fn dir(&self) -> &Path {
        self.guest.as_ref().expect("a running guest").dir()
    }

    /// Gives it as long again, after something that took its time.
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

    /// Waits for the end.
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

    /// Kills the monitor as a power cut would.
    pub fn kill(mut self) -> Guest {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.guest.take().expect("a running guest")
    }

    fn bound(&mut self, what: &str) {
        if self.started.elapsed() > PATIENCE {
            let _ = self.child.kill();
            let _ = self.child.wait();
            // share.sh knows these words.
            let silent = match self.console().is_empty() {
                true => ", of which the guest never said a word",
                false => "",
            };
            panic!("out of patience {what}{silent}:\n{}", self.report());
        }
    }

    fn report(&self) -> String {
        let messages = read(&self.dir().join("messages"));
        format!("--- console\n{}\n--- messages\n{messages}", self.console())
    }
}

/// A guest's end.
pub struct Ended {
    /// The monitor's exit status; minus the signal that killed it.
    pub status: i32,
    /// What the guest wrote.
    pub console: String,
    /// What the monitor wrote.
    pub messages: String,
    /// The guest, for its files.
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

/// Makes a file system in `file`, of `size` bytes as truncate(1) has them, that copies an image at once, and mounts it at `dir`.
pub fn mount_btrfs(file: &Path, size: &str, dir: &Path) {
    let (file, dir) = (file.display(), dir.display());
    sh(&format!(
        "modprobe -a loop btrfs 2>/dev/null || true; truncate -s {size} {file}; mkfs.btrfs -q {file}; mkdir {dir};
         mount -o loop {file} {dir}"
    ));
}

/// Makes `path` the image of a drive with a script.
fn write_script(path: &Path, script: &str) {
    let mut file = File::create(path).unwrap();
    file.write_all(script.as_bytes()).unwrap();
    file.set_len((script.len() as u64).next_multiple_of(512))
        .unwrap();
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Runs a command and fails with what it said unless it succeeds.
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
