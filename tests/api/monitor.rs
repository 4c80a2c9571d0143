//! A monitor with an API in a directory of its own, and the small guest.

use crate::client::Client;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Bound of all waiting. Nothing takes as long on a machine that is not stuck.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the guest's output on a standard output that it shares with messages, which may come in the middle of a line.
pub fn said_by_guest(stdout: &str) -> String {
    let mut said = String::new();
    for line in stdout.split_inclusive('\n') {
        let message = (0..line.len()).find(|at| line.get(*at..).is_some_and(starts_with_time));
        said.push_str(&line[..message.unwrap_or(line.len())]);
    }
    said
}

/// Returns whether `text` starts with the time of a message.
pub fn starts_with_time(text: &str) -> bool {
    let form = "dddd-dd-ddTdd:dd:dd.ddddddddd";
    let fits = |(c, f): (u8, u8)| {
        if f == b'd' {
            c.is_ascii_digit()
        } else {
            c == f
        }
    };
    text.len() >= form.len() && text.bytes().zip(form.bytes()).all(fits)
}

/// Returns a count that `make soak` raises.
pub fn rounds(reduced: u32, full: u32) -> u32 {
    match std::env::var("BANTAM_SOAK").as_deref() {
        Ok("1") => full,
        _ => reduced,
    }
}

/// Returns the guest of tests/guest/bare.c, compiled once.
pub fn kernel() -> &'static Path {
    static KERNEL: OnceLock<PathBuf> = OnceLock::new();
    KERNEL.get_or_init(|| {
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("guest.elf");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guest/build.sh");
        let built = Command::new(script).arg(&out).status().unwrap();
        assert!(built.success(), "tests/guest/build.sh: {built}");
        out
    })
}

/// Waits until `done` returns something.
pub fn wait_until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(Instant::now() < deadline, "out of patience: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A monitor that serves an API. It ends with its test.
pub struct Monitor {
    pub child: Child,
    dir: tempfile::TempDir,
}

impl Monitor {
    /// Starts a monitor with a socket only.
    pub fn start() -> Self {
        Self::with(|_, _| {})
    }

    /// Starts a monitor with further arguments from `more`, which gets the command and the directory.
    pub fn with(more: impl FnOnce(&mut Command, &Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(kernel(), dir.path().join("guest.elf")).unwrap();
        for image in ["disk.img", "other.img", "pm.img"] {
            let file = File::create(dir.path().join(image)).unwrap();
            file.set_len(2 << 20).unwrap();
        }
        // A shell starts background jobs with some signals ignored, which children inherit.
        let mut command = Command::new("env");
        command
            .args([
                "--default-signal",
                env!("CARGO_BIN_EXE_bantam"),
                "--api-sock",
            ])
            .arg(dir.path().join("api.sock"))
            // Relative paths in requests are in the monitor's directory.
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("stdout")).unwrap())
            .stderr(File::create(dir.path().join("stderr")).unwrap());
        more(&mut command, dir.path());
        let child = command.spawn().unwrap();
        Self { child, dir }
    }

    /// Starts a monitor with a running guest.
    pub fn running() -> Self {
        let monitor = Self::start();
        monitor.boot();
        monitor
    }

    /// Starts the small guest and waits for its first output.
    pub fn boot(&self) {
        self.start_guest();
        self.wait_for("tick 0000000000000001");
    }

    /// Starts the small guest.
    pub fn start_guest(&self) {
        let mut client = self.client();
        let source = format!(r#"{{"kernel_image_path": "{}"}}"#, self.path("guest.elf"));
        client.put("/boot-source", &source).expect(204);
        let start = r#"{"action_type": "InstanceStart"}"#;
        client.put("/actions", start).expect(204);
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the path of a file in the monitor's directory.
    pub fn path(&self, name: &str) -> String {
        self.dir().join(name).display().to_string()
    }

    pub fn client(&self) -> Client {
        Client::connect(&self.dir().join("api.sock"))
    }

    /// Reads a file in the monitor's directory.
    pub fn read(&self, name: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.dir().join(name)).unwrap_or_default()).into_owned()
    }

    /// Ends the monitor. Its directory lives as long as the returned value.
    pub fn keep(mut self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        std::mem::replace(&mut self.dir, dir)
    }

    /// Waits until the guest has printed `text` on standard output.
    pub fn wait_for(&self, text: &str) {
        let said = || {
            said_by_guest(&self.read("stdout"))
                .contains(text)
                .then_some(())
        };
        wait_until(text, said);
    }

    /// Waits for the monitor's end. Returns its exit status, or a negated signal number, and its output.
    pub fn wait(mut self) -> (i32, String) {
        let status = wait_until("its end", || self.child.try_wait().unwrap());
        let status = status.code().or(status.signal().map(|signal| -signal));
        (status.unwrap(), self.read("stdout"))
    }

    /// Returns the number of its descriptors.
    pub fn descriptors(&self) -> usize {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        fds.count()
    }

    /// Returns the number of its sockets.
    pub fn sockets(&self) -> usize {
        let fds = fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap();
        let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
        links
            .filter(|to| to.to_string_lossy().starts_with("socket:"))
            .count()
    }

    /// Returns its private memory, including the guest's, in KiB.
    pub fn private_kib(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let rollup = fs::read_to_string(path).unwrap();
        let private = rollup
            .lines()
            .filter(|line| line.starts_with("Private_Dirty:"));
        let numbers = private.filter_map(|line| line.split_whitespace().nth(1));
        numbers.map(|kib| kib.parse::<u64>().unwrap()).sum()
    }

    /// Returns its resident memory without files and the guest's memory, in KiB.
    pub fn heap_kib(&self) -> u64 {
        let maps = fs::read_to_string(format!("/proc/{}/smaps", self.child.id())).unwrap();
        let (mut size, mut sum) = (0, 0);
        for line in maps.lines() {
            let number = |text: &str| text.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
            if let Some(text) = line.strip_prefix("Size:") {
                size = number(text);
            } else if let Some(text) = line.strip_prefix("Anonymous:")
                && size < GUEST_MIB << 10
            {
                sum += number(text);
            }
        }
        sum
    }
}

/// Size of the guest's memory, which is a mapping of at least this size.
const GUEST_MIB: u64 = 100;

impl Drop for Monitor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
