//! Forks of a running guest: the length of the pause, and the cost of a child.

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

/// Time limit. A guest that KVM interprets takes long to touch 4 GiB.
const PATIENCE: Duration = Duration::from_secs(120);
/// Time for a child's threads to settle.
const REST: Duration = Duration::from_millis(300);
/// Touched memory, and number of measurements.
const SIZES: [(&str, u64, usize); 3] = [
    ("128 MiB touched", 128, 9),
    ("512 MiB touched", 512, 9),
    ("4 GiB touched", 4096, 5),
];
/// Children of one guest, its touched memory, and number of measurements.
const COPIES: usize = 100;
const COPIED_MIB: u64 = 64;
const ROUNDS: usize = 5;
/// Forks of a guest that writes.
const WRITING_ROUNDS: usize = 9;
/// Time between two forks of a guest that writes, in which it touches all of its pages.
const WRITES: Duration = Duration::from_millis(700);
/// Additional memory of the guest.
const SPARE_MIB: u64 = 64;
const LOW_MIB: u64 = 3072;
const HIGH_START_MIB: u64 = 4096;
/// Memory below this belongs to the payload.
const FIRST_MIB: u64 = 4;
const HELD_AIM: f64 = 2.0;
const WAITING_AIM: f64 = 150.0;
const NOTHING_AIM: f64 = 400.0;
const PRIVATE_AIM: f64 = 0.6;

/// Measures Bantam.
pub fn measure(monitors: &[Monitor], out: &Path) -> Result<Vec<Table>, Failure> {
    let bantam = monitors.iter().find(|m| m.kind == Kind::Bantam);
    let bantam = bantam.ok_or("Bantam is not here")?;
    let dir = out.join("fork");
    fs::create_dir_all(&dir)?;
    let mut tables = vec![held(bantam, &dir)?, held_while_writing(bantam, &dir)?];
    tables.extend(copies(bantam, &dir)?);
    Ok(tables)
}

fn held(bantam: &Monitor, dir: &Path) -> Result<Table, Failure> {
    let mut entries = Vec::new();
    for (name, mib, rounds) in SIZES {
        let mut entry = Entry::new(name);
        for _ in 0..rounds {
            let parent = Guest::start_busy(bantam, mib, dir)?;
            entry.add(parent.held_for_one(bantam, dir)?);
        }
        entries.push(entry);
    }
    Ok(Table {
        title: "A guest's first fork: how long it is held".into(),
        unit: "ms",
        note: "held_us in the answer of PUT /vm/fork, for one copy; 1 vCPU that runs".into(),
        entries,
        cases: true,
        aims: vec![Aim::AtMost(HELD_AIM)],
    })
}

fn held_while_writing(bantam: &Monitor, dir: &Path) -> Result<Table, Failure> {
    let mut entries = [
        Entry::new("its first fork"),
        Entry::new("its second"),
        Entry::new("its third"),
    ];
    for _ in 0..WRITING_ROUNDS {
        let parent = Guest::start(bantam, payload::write_touching(dir)?, "", 64, dir)?;
        for entry in &mut entries {
            entry.add(parent.held_for_one(bantam, dir)?);
            std::thread::sleep(WRITES);
        }
    }
    Ok(Table {
        title: "A guest that writes without end: how long it is held".into(),
        unit: "ms",
        note:
            "likewise; it changes a byte in each page of 32 MiB, over and over, as fast as it can"
                .into(),
        entries: entries.into(),
        cases: true,
        aims: vec![Aim::AtMost(HELD_AIM)],
    })
}

fn copies(bantam: &Monitor, dir: &Path) -> Result<[Table; 3], Failure> {
    let mut waiting = [Entry::new("answered"), Entry::new("all run")];
    let (mut nothing, mut private) = (Entry::new("all run"), Entry::new("a copy"));
    for _ in 0..ROUNDS {
        let parent = Guest::start_idle(bantam, dir)?;
        let mut children = Child::start_all(bantam, dir)?;
        std::thread::sleep(REST);
        let asked = Instant::now();
        parent.fork(&children)?;
        let [answered, all_run] = &mut waiting;
        answered.add(milliseconds(asked));
        Child::wait_for_all(&mut children)?;
        all_run.add(milliseconds(asked));
        std::thread::sleep(REST);
        for child in &children {
            private.add(private_mib(child.running.id())?);
        }
        drop((children, parent));

        let parent = Guest::start_idle(bantam, dir)?;
        std::thread::sleep(REST);
        let begun = Instant::now();
        let mut children = Child::start_all(bantam, dir)?;
        parent.fork(&children)?;
        Child::wait_for_all(&mut children)?;
        nothing.add(milliseconds(begun));
    }
    let guest = format!(
        "a guest with {COPIED_MIB} MiB touched that idles and writes to its COM1 every 10 ms; run: each copy has \
         written there"
    );
    Ok([
        Table {
            title: format!("{COPIES} copies into processes that wait"),
            unit: "ms",
            note: format!("from PUT /vm/fork; {guest}"),
            entries: waiting.into(),
            cases: true,
            aims: vec![Aim::AtMost(WAITING_AIM)],
        },
        Table {
            title: format!("{COPIES} copies from nothing"),
            unit: "ms",
            note: format!("from the start of their processes; {guest}"),
            entries: vec![nothing],
            cases: true,
            aims: vec![Aim::AtMost(NOTHING_AIM)],
        },
        Table {
            title: "Memory that is a copy's alone".into(),
            unit: "MiB",
            note: format!(
                "Private_Dirty in smaps_rollup, {} ms after the fork: the monitor and what its guest has written; \
                 {COPIES} copies at once",
                REST.as_millis()
            ),
            entries: vec![private],
            cases: true,
            aims: vec![Aim::AtMost(PRIVATE_AIM)],
        },
    ])
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

struct Guest {
    running: Running,
    socket: PathBuf,
}

impl Guest {
    /// Starts a guest that has touched `mib` and writes to its console.
    fn start_busy(bantam: &Monitor, mib: u64, dir: &Path) -> Result<Self, Failure> {
        let low = (FIRST_MIB + mib).min(LOW_MIB);
        let mut ranges = vec![(FIRST_MIB << 20, low << 20)];
        let high = FIRST_MIB + mib - low;
        if high > 0 {
            ranges.push((HIGH_START_MIB << 20, (HIGH_START_MIB + high) << 20));
        }
        Self::start(bantam, payload::write_busy(dir, &ranges)?, "", mib, dir)
    }

    fn start_idle(bantam: &Monitor, dir: &Path) -> Result<Self, Failure> {
        let kernel = payload::build_idle(dir)?;
        let touch = format!("touch={COPIED_MIB}");
        Self::start(bantam, kernel, &touch, COPIED_MIB, dir)
    }

    /// Starts a forkable guest.
    fn start(
        bantam: &Monitor,
        kernel: PathBuf,
        arguments: &str,
        mib: u64,
        dir: &Path,
    ) -> Result<Self, Failure> {
        let config = json!({
            "boot-source": {"kernel_image_path": kernel, "boot_args": arguments},
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
        // The guest must not wait for a reader of its marks.
        running.read_on();
        Ok(Self { running, socket })
    }

    fn fork(&self, children: &[Child]) -> Result<Value, Failure> {
        let sockets = children.iter().map(|child| json!({"socket": child.socket}));
        let children: Vec<_> = sockets.collect();
        let api = &mut connect(&self.socket)?;
        let answer = call(api, "PUT", "/vm/fork", &json!({"children": children}));
        let answer = answer.map_err(|failure| self.running.explain(&failure.to_string()))?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Returns the pause for one child in milliseconds.
    fn held_for_one(&self, bantam: &Monitor, dir: &Path) -> Result<f64, Failure> {
        let child = Child::start(bantam, dir, 0)?;
        child.wait_for_socket()?;
        let answer = self.fork(std::slice::from_ref(&child))?;
        let held = answer.get("held_us").and_then(Value::as_u64);
        let held = held.ok_or("there is no held_us")?;
        Ok(f64::from(u32::try_from(held)?) / 1e3)
    }
}

struct Child {
    running: Running,
    socket: PathBuf,
}

impl Child {
    /// Starts processes that wait for children.
    fn start_all(bantam: &Monitor, dir: &Path) -> Result<Vec<Self>, Failure> {
        let started = (0..COPIES).map(|index| Self::start(bantam, dir, index));
        let children = started.collect::<Result<Vec<_>, _>>()?;
        children.iter().try_for_each(Self::wait_for_socket)?;
        Ok(children)
    }

    fn wait_for_all(children: &mut [Self]) -> Result<(), Failure> {
        let mut children = children.iter_mut();
        children.try_for_each(|child| child.running.wait_for_mark().map(drop))
    }

    /// Starts a process that waits for a child.
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
        let (running, _) = Running::start(&mut command, Stdio::piped(), &dir, PATIENCE)?;
        Ok(Self { running, socket })
    }

    fn wait_for_socket(&self) -> Result<(), Failure> {
        let started = Instant::now();
        while !self.socket.exists() {
            if started.elapsed() > PATIENCE {
                return Err(self.running.explain("it does not wait for a copy"));
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(())
    }
}

fn private_mib(process: u32) -> Result<f64, Failure> {
    let rollup = fs::read_to_string(format!("/proc/{process}/smaps_rollup"))?;
    let kib = crate::memory::kib_of(&rollup, "Private_Dirty").ok_or("there is no Private_Dirty")?;
    Ok(f64::from(u32::try_from(kib)?) / 1024.0)
}
