//! Copies of a running guest: how long it is held, and what a copy takes.

use crate::api::{call, connect};
use crate::monitors::{Kind, Monitor};
use crate::process::Running;
use crate::report::{Aim, Entry, Table};
use crate::{Failure, payload};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Where memory is interpreted, 4 GiB take a while to be touched.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time for a copy's threads to come to rest.
const REST: Duration = Duration::from_millis(300);
const COPIES: usize = 20;
/// Touched, and how often it is measured.
const SIZES: [(&str, u64, usize); 3] = [
    ("128 MiB touched", 128, 5),
    ("512 MiB touched", 512, 5),
    ("4 GiB touched", 4096, 3),
];
/// Memory that is there besides.
const SPARE_MIB: u64 = 64;
const LOW_MIB: u64 = 3072;
const HIGH_START_MIB: u64 = 4096;
/// The payload lies below.
const FIRST_MIB: u64 = 4;
const HELD_AIM: f64 = 2.0;
const COPIES_AIM: f64 = 30.0;
const PRIVATE_AIM: f64 = 0.6;

/// Measures it for Bantam.
pub fn measure(monitors: &[Monitor], out: &Path) -> Result<Vec<Table>, Failure> {
    let bantam = monitors.iter().find(|m| m.kind == Kind::Bantam);
    let bantam = bantam.ok_or("Bantam is not here")?;
    let dir = out.join("fork");
    fs::create_dir_all(&dir)?;
    let mut held = Vec::new();
    for (name, mib, rounds) in SIZES {
        let mut entry = Entry::new(name);
        for _ in 0..rounds {
            let parent = Guest::start(bantam, mib, &dir)?;
            let child = Child::start(bantam, &dir, 0)?;
            let answer = parent.fork(std::slice::from_ref(&child.socket))?;
            let held = answer.get("held_us").and_then(Value::as_u64);
            let held = held.ok_or("there is no held_us")?;
            entry.add(f64::from(u32::try_from(held)?) / 1e3);
        }
        held.push(entry);
    }
    let (mut answered, mut all_run, mut private) = (
        Entry::new("the answer"),
        Entry::new("all run"),
        Entry::new("a copy"),
    );
    for _ in 0..5 {
        let parent = Guest::start(bantam, 64, &dir)?;
        let started = (0..COPIES).map(|index| Child::start(bantam, &dir, index));
        let mut children = started.collect::<Result<Vec<_>, _>>()?;
        let sockets: Vec<_> = children.iter().map(|child| child.socket.clone()).collect();
        std::thread::sleep(REST);
        let asked = Instant::now();
        parent.fork(&sockets)?;
        answered.add(asked.elapsed().as_secs_f64() * 1e3);
        for child in &mut children {
            child.running.wait_for_mark()?;
        }
        all_run.add(asked.elapsed().as_secs_f64() * 1e3);
        std::thread::sleep(REST);
        for child in &children {
            private.add(private_mib(child.running.id())?);
        }
    }
    Ok(vec![
        Table {
            title: "A guest's first fork: how long it is held".into(),
            unit: "ms",
            note: "held_us in the answer of PUT /vm/fork, for one copy; 1 vCPU that runs".into(),
            entries: held,
            aim: Some(Aim::AtMost(HELD_AIM)),
        },
        Table {
            title: format!("{COPIES} copies into processes that wait"),
            unit: "ms",
            note: "from PUT /vm/fork to its answer, and until each copy has written to its COM1; 64 MiB touched"
                .into(),
            entries: vec![answered, all_run],
            aim: Some(Aim::AtMost(COPIES_AIM)),
        },
        Table {
            title: "Memory that is a copy's alone".into(),
            unit: "MiB",
            note: format!(
                "Private_Dirty in smaps_rollup, {} ms after the fork: the monitor and what its guest has written",
                REST.as_millis()
            ),
            entries: vec![private],
            aim: Some(Aim::AtMost(PRIVATE_AIM)),
        },
    ])
}

struct Guest {
    running: Running,
    socket: PathBuf,
}

impl Guest {
    /// One that has touched `mib`, and can be copied.
    fn start(bantam: &Monitor, mib: u64, dir: &Path) -> Result<Self, Failure> {
        let low = (FIRST_MIB + mib).min(LOW_MIB);
        let mut ranges = vec![(FIRST_MIB << 20, low << 20)];
        let high = FIRST_MIB + mib - low;
        if high > 0 {
            ranges.push((HIGH_START_MIB << 20, (HIGH_START_MIB + high) << 20));
        }
        let config = json!({
            "boot-source": {"kernel_image_path": payload::write_busy(dir, &ranges)?, "boot_args": ""},
            "drives": [],
            "machine-config": {"vcpu_count": 1, "mem_size_mib": mib + SPARE_MIB, "forkable": true},
        });
        let file = dir.join("parent.json");
        fs::write(&file, config.to_string())?;
        let socket = dir.join("parent.sock");
        let _ = fs::remove_file(&socket);
        let mut command = Command::new(&bantam.program);
        command.args(["--no-seccomp", "--level", "Error", "--config-file"]);
        command.arg(&file).arg("--api-sock").arg(&socket);
        let (mut running, _) = Running::start(&mut command, Stdio::piped(), dir, PATIENCE)?;
        running.wait_for_mark()?;
        // It is not to wait for a reader of its marks.
        running.read_on();
        Ok(Self { running, socket })
    }

    fn fork(&self, sockets: &[PathBuf]) -> Result<Value, Failure> {
        let children: Vec<_> = sockets.iter().map(|path| json!({"socket": path})).collect();
        let api = &mut connect(&self.socket)?;
        let answer = call(api, "PUT", "/vm/fork", &json!({"children": children}));
        let answer = answer.map_err(|failure| self.running.explain(&failure.to_string()))?;
        Ok(serde_json::from_str(&answer)?)
    }
}

struct Child {
    running: Running,
    socket: PathBuf,
}

impl Child {
    /// A process that waits for a copy.
    fn start(bantam: &Monitor, dir: &Path, index: usize) -> Result<Self, Failure> {
        let dir = dir.join(format!("child-{index}"));
        fs::create_dir_all(&dir)?;
        let socket = dir.join("fork.sock");
        let _ = fs::remove_file(&socket);
        let mut command = Command::new(&bantam.program);
        command.args([
            "--no-api",
            "--no-seccomp",
            "--level",
            "Error",
            "--fork-socket",
        ]);
        command.arg(&socket);
        let (running, started) = Running::start(&mut command, Stdio::piped(), &dir, PATIENCE)?;
        while !socket.exists() {
            if started.elapsed() > PATIENCE {
                return Err(running.explain("it does not wait for a copy"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(Self { running, socket })
    }
}

fn private_mib(process: u32) -> Result<f64, Failure> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let kib = crate::memory::kib_of(&rollup, "Private_Dirty").ok_or("there is no Private_Dirty")?;
    Ok(f64::from(u32::try_from(kib)?) / 1024.0)
}
