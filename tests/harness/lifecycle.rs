//! The mode of `e2e.sh --after`: while a test runs, its guest is paused or moved to another process, again and again, the first
//! time as soon as its script begins. The test must not notice.
//!
//! A test says which actions have no meaning for it; the reasons are printed and counted. Any other guest without an
//! action fails its test.

use super::{Guest, Running, http, network, read, rounds, write_script};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time between two actions.
const BETWEEN: Duration = Duration::from_secs(3);
const AT_FIRST: Duration = Duration::from_secs(1);
/// Length of a pause.
const PAUSE: Duration = Duration::from_millis(200);
/// Time between a snapshot and the diff that follows.
const DIFFERENCE: Duration = Duration::from_secs(1);
/// Time limit for the monitor of a guest that has ended.
const END: Duration = Duration::from_secs(10);

/// First output of the script.
const BEGUN: &str = "lifecycle=begun";

/// Growth of the script's drive in bytes that releases the script, which is shorter before.
const GROWTH: u64 = 512;

/// Returns the first lines of a script on a drive of `sectors`: they report the beginning and wait until the drive grows.
fn beginning(sectors: u64) -> String {
    format!(
        "echo {BEGUN}; lifecycle=/sys/block/$(basename $(readlink /dev/disk/by-id/virtio-script))/size
         while [ $(cat $lifecycle) = {sectors} ]; do usleep 100000; done\n"
    )
}

/// An action on a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    /// Pause and resume.
    Pause,
    /// Save, and restore in another process.
    Restore,
    /// The same, with diff snapshots.
    Diff,
    /// Fork; the child replaces the parent.
    Fork,
}

/// The actions that move the guest to another process.
pub const ELSEWHERE: [After; 3] = [After::Restore, After::Diff, After::Fork];

impl After {
    /// Returns the action of this run, if there is one.
    pub fn current() -> Option<Self> {
        match std::env::var("BANTAM_AFTER").as_deref() {
            Err(_) | Ok("") => None,
            Ok("pause") => Some(Self::Pause),
            Ok("restore") => Some(Self::Restore),
            Ok("diff") => Some(Self::Diff),
            Ok("fork") => Some(Self::Fork),
            Ok(other) => panic!("BANTAM_AFTER is {other}, not pause, restore, diff or fork"),
        }
    }
}

/// Actions from which a test exempts its guest.
#[derive(Default)]
pub struct Spared {
    /// No action at all, for this reason.
    all: Option<&'static str>,
    /// No action after the start, for this reason.
    later: Option<&'static str>,
}

impl Guest {
    /// Exempts the guest from `actions`, for a reason that is printed.
    pub fn not_after(mut self, actions: &[After], why: &'static str) -> Self {
        if After::current().is_some_and(|current| actions.contains(&current)) {
            self.spared.all = Some(why);
        }
        self
    }

    /// Restricts `actions` to the beginning of the script, for a reason that is printed.
    pub fn only_at_the_start(mut self, actions: &[After], why: &'static str) -> Self {
        if After::current().is_some_and(|current| actions.contains(&current)) {
            self.spared.later = Some(why);
        }
        self
    }

    /// Returns the action for the guest, and configures the guest for it.
    pub(super) fn schedule(&mut self) -> Schedule {
        let Some(action) = After::current() else {
            return Schedule::default();
        };
        let script = self.drives.iter().any(|d| d["drive_id"] == "script");
        if self.initrd.is_none() || !script {
            self.spared.all = Some("the guest is a payload of a few instructions");
        }
        if let Some(why) = self.spared.all {
            println!("lifecycle: none: {why}");
            return Schedule::default();
        }
        self.api = true;
        let key = match action {
            After::Pause | After::Restore => None,
            After::Diff => Some("track_dirty_pages"),
            After::Fork => Some("forkable"),
        };
        if let (Some(key), Some(machine)) = (key, self.machine.as_object_mut()) {
            machine.insert(key.into(), true.into());
        }
        let path = self.script_image();
        let script = read(&path);
        let script = script.trim_end_matches('\0');
        let bytes = (script.len() as u64).next_multiple_of(512) + GROWTH;
        write_script(&path, &format!("{}{script}", beginning(bytes / 512)));
        let image = fs::OpenOptions::new().write(true).open(&path);
        image.unwrap().set_len(bytes).unwrap();
        if let Some(why) = self.spared.later {
            println!("lifecycle: only at the start: {why}");
        }
        Schedule {
            action: Some(action),
            left: if self.spared.later.is_some() {
                1
            } else {
                rounds(2, 20)
            },
            ..Schedule::default()
        }
    }
}

/// The actions on a guest: pending and done.
#[derive(Default)]
pub struct Schedule {
    action: Option<After>,
    /// Remaining actions.
    left: u32,
    done: u32,
    /// Time of the next action; unknown before the script begins.
    due: Option<Instant>,
    /// Names that the test knows for the images of a child's drives.
    images: Vec<(PathBuf, PathBuf)>,
}

impl Schedule {
    /// Fails if the guest should have had an action and had none.
    pub(super) fn check(&self) {
        if let Some(action) = self.action {
            println!("lifecycle: {action:?} {} times", self.done);
            assert!(self.done > 0, "the guest ended before its {action:?}");
        }
    }

    /// Returns the exit status of a monitor, or that of the script where the guest could not report it: after a restore KVM
    /// reports the guest's task-state segment as busy, as processors do, and the emulation of software hosts then denies user
    /// space every port; `userland` powers off instead.
    pub(super) fn status(&self, status: i32, console: &str) -> i32 {
        let elsewhere = self.action.is_some_and(|a| ELSEWHERE.contains(&a));
        let software = std::env::var("BANTAM_KVM_MODE").as_deref() == Ok("software");
        if status != 0 || self.done == 0 || !elsewhere || !software {
            return status;
        }
        let said = console.lines().rev().find_map(|line| {
            let status = line
                .trim_end()
                .strip_prefix("bantam-guest: script ended with ")?;
            status.parse().ok()
        });
        said.unwrap_or(status)
    }
}

impl Running {
    /// Performs a due action. Returns true if it did.
    pub(super) fn tend(&mut self) -> bool {
        let Some(action) = self.schedule.action else {
            return false;
        };
        let due = match self.schedule.due {
            None => self.console().contains(BEGUN),
            Some(due) => self.schedule.left > 0 && due <= Instant::now(),
        };
        // A guest that has ended is left to the test that waits for its end.
        if !due || self.child.try_wait().unwrap().is_some() {
            return false;
        }
        let began = Instant::now();
        let done = match action {
            After::Pause => self.pause_and_resume(),
            After::Restore => self.go_on_elsewhere(&["whole"]),
            After::Diff => self.go_on_elsewhere(&["whole", "one", "two"]),
            After::Fork => self.go_on_as_a_copy(),
        };
        let first = self.schedule.due.is_none();
        let done = done.and_then(|()| if first { self.go_ahead() } else { Ok(()) });
        match done {
            Ok(()) => self.schedule.done += 1,
            // The guest may have ended meanwhile.
            Err(why) => {
                while self.child.try_wait().unwrap().is_none() {
                    assert!(
                        began.elapsed() < END,
                        "{action:?}: {why}\n{}",
                        self.report()
                    );
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
        }
        self.schedule.left -= 1;
        self.schedule.due = Some(Instant::now() + if first { AT_FIRST } else { BETWEEN });
        self.started += began.elapsed();
        true
    }

    /// Lets the script continue from its beginning.
    fn go_ahead(&self) -> Result<(), String> {
        let guest = self.guest.as_ref().expect("a running guest");
        let path = guest.script_image();
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len + GROWTH).unwrap();
        let grown = json!({"drive_id": "script", "path_on_host": path});
        self.request("PATCH", "/drives/script", &grown).map(drop)
    }

    /// Lets the guest run for `time`.
    pub fn run_for(&mut self, time: Duration) {
        let started = Instant::now();
        while self.tend() || started.elapsed() < time {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Runs `work` while the guest runs, and returns its result.
    pub fn meanwhile<T: Send>(&mut self, work: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let work = scope.spawn(work);
            while self.tend() || !work.is_finished() {
                std::thread::sleep(Duration::from_millis(20));
            }
            match work.join() {
                Ok(result) => result,
                Err(panic) => {
                    println!("{}", self.report());
                    std::panic::resume_unwind(panic)
                }
            }
        })
    }

    /// Returns the tap of the guest's interface `id`.
    pub fn tap(&self, id: &str) -> String {
        if self.schedule.action.is_none() {
            let guest = self.guest.as_ref().expect("a running guest");
            let named = |all: &[Value]| tap_of(all, id);
            return named(&guest.interfaces);
        }
        let config: Value =
            serde_json::from_str(&self.api("GET", "/vm/config", Value::Null)).unwrap();
        tap_of(config["network-interfaces"].as_array().unwrap(), id)
    }

    /// Sends a request to a monitor that may be about to end.
    fn request(&self, method: &str, path: &str, body: &Value) -> Result<String, String> {
        let body = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let stream = UnixStream::connect(self.dir().join("api.sock"));
        let answer = stream.and_then(|stream| http::ask_over(stream, method, path, &body));
        match answer {
            Ok((200 | 204, answer)) => Ok(answer),
            Ok((status, answer)) => Err(format!("{method} {path} {body}: {status} {answer}")),
            Err(e) => Err(format!("{method} {path}: {e}")),
        }
    }

    fn set(&self, state: &str) -> Result<(), String> {
        self.request("PATCH", "/vm", &json!({"state": state}))
            .map(drop)
    }

    fn pause_and_resume(&self) -> Result<(), String> {
        self.set("Paused")?;
        std::thread::sleep(PAUSE);
        self.set("Resumed")
    }

    /// Saves the guest under the first of `names`, and as diffs under the others, and restores it in another process. Removes
    /// the files.
    fn go_on_elsewhere(&mut self, names: &[&str]) -> Result<(), String> {
        let mut last = "";
        for (round, name) in names.iter().enumerate() {
            if round > 0 {
                self.set("Resumed")?;
                std::thread::sleep(DIFFERENCE);
            }
            self.set("Paused")?;
            let kind = if round == 0 { "Full" } else { "Diff" };
            self.request("PUT", "/snapshot/create", &self.snapshot(name, kind))?;
            last = name;
        }
        // A load sets anew whether diffs are tracked.
        let tracks = self.schedule.action == Some(After::Diff);
        self.go_on_from(last, json!({"track_dirty_pages": tracks}));
        for file in names.iter().flat_map(|name| self.snapshot_files(name)) {
            fs::remove_file(file).unwrap();
        }
        Ok(())
    }

    /// Forks the guest, ends it, and lets the child replace it under the names that the test knows.
    fn go_on_as_a_copy(&mut self) -> Result<(), String> {
        // Both would answer to one address.
        self.set("Paused")?;
        let config = self.request("GET", "/vm/config", &Value::Null)?;
        let config: Value = serde_json::from_str(&config).unwrap();
        let round = self.schedule.done;
        let images = self.images(&config, round);
        let socket = self.dir().join("fork.sock");
        let mut command = self.another("copy.sock");
        command.arg("--fork-socket").arg(&socket);
        for (id, copy, _) in &images {
            command.arg("--fork-drive");
            command.arg(format!("{id}={}", copy.display()));
        }
        let mut copy = command.spawn().unwrap();
        let started = Instant::now();
        while !socket.exists() {
            assert!(started.elapsed() < END, "the copy's process does not wait");
            std::thread::sleep(Duration::from_millis(5));
        }
        // The parent listens under another name.
        let vsock = config["vsock"]["uds_path"].as_str().map(Path::new);
        if let Some(path) = vsock {
            fs::rename(path, path.with_extension("parent")).unwrap();
        }
        let interfaces = config["network-interfaces"].as_array().unwrap();
        let taps = interfaces.iter().map(|interface| {
            let tap = network::other(interface["host_dev_name"].as_str().unwrap());
            json!({"iface_id": interface["iface_id"], "host_dev_name": tap})
        });
        let child = json!({"socket": socket, "network_overrides": taps.collect::<Vec<_>>()});
        let forked = self.request("PUT", "/vm/fork", &json!({"children": [child]}));
        if let Err(why) = forked {
            let _ = copy.kill();
            let _ = copy.wait();
            return Err(why);
        }
        let _ = self.child.kill();
        self.child.wait().unwrap();
        self.child = copy;
        let dir = self.dir().to_owned();
        fs::rename(dir.join("copy.sock"), dir.join("api.sock")).unwrap();
        if let Some(path) = vsock {
            fs::remove_file(path.with_extension("parent")).unwrap();
        }
        for (_, copy, known) in images {
            // The child's own name stays, because the next child is cloned from it.
            fs::remove_file(&known).unwrap();
            fs::hard_link(&copy, &known).unwrap();
            self.schedule.images.push((copy, known));
        }
        Ok(())
    }

    /// Returns the drives that the guest of `config` writes to: their ids, the paths of the child's images, and the names that the
    /// test knows.
    fn images(&self, config: &Value, round: u32) -> Vec<(String, PathBuf, PathBuf)> {
        let drives = config["drives"].as_array().unwrap().iter();
        let written = drives.filter(|drive| drive["is_read_only"] != true);
        let image = |drive: &Value| {
            let id = drive["drive_id"].as_str().unwrap().to_owned();
            let path = Path::new(drive["path_on_host"].as_str().unwrap());
            let mut before = self.schedule.images.iter();
            let known = before.find(|(copy, _)| copy == path);
            let known = known.map_or(path, |(_, known)| known).to_owned();
            (
                id.clone(),
                self.dir().join(format!("{id}.copy{round}")),
                known,
            )
        };
        written.map(image).collect()
    }
}

fn tap_of(interfaces: &[Value], id: &str) -> String {
    let interface = interfaces.iter().find(|i| i["iface_id"] == id);
    let interface = interface.expect("the guest has this interface");
    interface["host_dev_name"].as_str().unwrap().into()
}
