//! Time from a snapshot to a running guest: by an API request, and from the start of a process.

use crate::api::{call, connect};
use crate::monitors::{Kind, Monitor};
use crate::process::Running;
use crate::report::{Aim, Entry, Table};
use crate::startup::interleaved;
use crate::{Failure, floor, payload};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const MEM_MIB: u64 = 128;
/// Target, as a share of the best peer's time in the same run.
const SHARE_AIM: f64 = 0.5;
/// Target in milliseconds.
const LOAD_AIM: f64 = 3.4;
const FLOOR_AIM: f64 = 1.0;
const START_AIM: f64 = 4.25;
/// Time in which a monitor becomes idle after an answer.
const REST: Duration = Duration::from_millis(5);

/// The snapshot of a monitor.
struct Saved {
    dir: PathBuf,
}

impl Saved {
    fn state(&self) -> PathBuf {
        self.dir.join("state")
    }

    fn memory(&self) -> PathBuf {
        self.dir.join("memory")
    }
}

/// Measures the monitors that can restore.
pub fn measure(monitors: &[Monitor], rounds: usize, out: &Path) -> Result<Vec<Table>, Failure> {
    let restores = |m: &&Monitor| m.kind != Kind::Qemu;
    let monitors: Vec<Monitor> = monitors.iter().filter(restores).cloned().collect();
    let out = out.join("restore");
    fs::create_dir_all(&out)?;
    // A peer that cannot save on this host is left out.
    let mut unsaved = Vec::new();
    for monitor in &monitors {
        match save(monitor, &saved(monitor, &out)) {
            Err(why) if monitor.kind != Kind::Bantam => {
                unsaved.push((monitor.kind, in_short(&why)))
            }
            other => other?,
        }
    }
    let has_saved = |monitor: &Monitor| {
        let failure = unsaved.iter().find(|(kind, _)| *kind == monitor.kind);
        failure.map_or(Ok(()), |(_, why)| Err(Failure::from(why.as_str())))
    };
    let with_api: Vec<Monitor> = monitors
        .iter()
        .filter(|m| m.kind != Kind::CloudHypervisor)
        .cloned()
        .collect();
    let floor = RefCell::new(Entry::yardstick("the bare ioctls"));
    let mut loads = interleaved(&with_api, rounds, |monitor| {
        has_saved(monitor)?;
        let saved = saved(monitor, &out);
        if monitor.kind == Kind::Bantam {
            let bytes = usize::try_from(MEM_MIB << 20)?;
            let took = floor::once(&saved.memory(), bytes)?;
            floor.borrow_mut().add(took.as_secs_f64() * 1e3);
        }
        load(monitor, &saved, true).map(|(_, loaded)| loaded)
    });
    loads.push(floor.into_inner());
    let starts = interleaved(&monitors, rounds, |monitor| {
        has_saved(monitor)?;
        let saved = saved(monitor, &out);
        match monitor.kind {
            Kind::Bantam => restore(monitor, &saved),
            Kind::CloudHypervisor => restore_by_its_api(monitor, &saved),
            _ => load(monitor, &saved, false).map(|(whole, _)| whole),
        }
    });
    let what = "1 vCPU, 128 MiB, one drive, the memory's file in the page cache";
    Ok(vec![
        Table {
            title: "A snapshot's load to its guest resumed".into(),
            unit: "ms",
            note: format!(
                "PUT /snapshot/load with resume_vm of a monitor that waits, until its answer; {what}; the bare \
                 ioctls make a VM and set a state, in the measuring process; {rounds} interleaved rounds"
            ),
            entries: loads,
            cases: false,
            aims: vec![
                Aim::ShareOfBestPeer(SHARE_AIM),
                Aim::AtMost(LOAD_AIM),
                Aim::OverYardstick(FLOOR_AIM),
            ],
        },
        Table {
            title: "Start to a restored guest that runs".into(),
            unit: "ms",
            note: format!(
                "fork and exec of the monitor until the guest's next byte on COM1 (Bantam, --restore), or until the \
                 API has answered that it was resumed (the others); {what}; {rounds} interleaved rounds"
            ),
            entries: starts,
            cases: false,
            aims: vec![Aim::ShareOfBestPeer(SHARE_AIM), Aim::AtMost(START_AIM)],
        },
    ])
}

/// Returns the beginning of a monitor's messages.
fn in_short(why: &Failure) -> String {
    let words = why.to_string();
    let words: Vec<_> = words.split_whitespace().collect();
    format!(
        "cannot save here: {}",
        words.join(" ").chars().take(160).collect::<String>()
    )
}

fn saved(monitor: &Monitor, out: &Path) -> Saved {
    Saved {
        dir: out.join(monitor.file_stem()),
    }
}

/// Starts a monitor with its API at a socket, which is removed first.
fn serving(monitor: &Monitor, saved: &Saved) -> Result<(Command, PathBuf), Failure> {
    let socket = saved.dir.join("api.sock");
    free(&socket)?;
    let mut command = Command::new(&monitor.program);
    match monitor.kind {
        Kind::CloudHypervisor => command.args(["--seccomp", "false", "--api-socket"]),
        _ => command.args(["--no-seccomp", "--level", "Error", "--api-sock"]),
    };
    command.arg(&socket);
    Ok((command, socket))
}

fn free(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// Saves a guest that writes marks for ever.
fn save(monitor: &Monitor, saved: &Saved) -> Result<(), Failure> {
    fs::create_dir_all(&saved.dir)?;
    let kernel = payload::write_busy(&saved.dir, &[])?;
    let disk = saved.dir.join("disk.img");
    File::create(&disk)?.set_len(2 << 20)?;
    let (mut command, socket) = serving(monitor, saved)?;
    let (state, memory) = (saved.state(), saved.memory());
    if monitor.kind == Kind::CloudHypervisor {
        command.args(["--console", "off", "--serial", "tty", "--cpus", "boot=1"]);
        command.args(["--memory", &format!("size={MEM_MIB}M")]);
        command.arg("--kernel").arg(&kernel);
        command
            .arg("--disk")
            .arg(format!("path={}", disk.display()));
    }
    let (mut running, _) = Running::start(&mut command, Stdio::piped(), &saved.dir, PATIENCE)?;
    let api = &mut connect(&socket)?;
    if monitor.kind == Kind::CloudHypervisor {
        running.wait_for_mark()?;
        for name in ["state.json", "config.json", "memory-ranges"] {
            free(&saved.dir.join(name))?;
        }
        let to = json!({"destination_url": format!("file://{}", saved.dir.display())});
        call(api, "PUT", "/api/v1/vm.pause", &Value::Null)?;
        call(api, "PUT", "/api/v1/vm.snapshot", &to)?;
        return Ok(());
    }
    let machine = json!({"vcpu_count": 1, "mem_size_mib": MEM_MIB});
    call(api, "PUT", "/machine-config", &machine)?;
    let boot = json!({"kernel_image_path": kernel, "boot_args": "console=ttyS0 quiet"});
    call(api, "PUT", "/boot-source", &boot)?;
    let drive = json!({
        "drive_id": "disk", "is_root_device": false, "is_read_only": false, "path_on_host": disk,
    });
    call(api, "PUT", "/drives/disk", &drive)?;
    let start = json!({"action_type": "InstanceStart"});
    call(api, "PUT", "/actions", &start)?;
    running.wait_for_mark()?;
    call(api, "PATCH", "/vm", &json!({"state": "Paused"}))?;
    let files = json!({"snapshot_path": state, "mem_file_path": memory});
    call(api, "PUT", "/snapshot/create", &files)?;
    Ok(())
}

/// Returns the times from the process's start and from the request to the answer. With `rest` the monitor is idle before
/// the request.
fn load(monitor: &Monitor, saved: &Saved, rest: bool) -> Result<(Duration, Duration), Failure> {
    let (mut command, socket) = serving(monitor, saved)?;
    let (running, started) = Running::start(&mut command, Stdio::null(), &saved.dir, PATIENCE)?;
    let api = &mut connect(&socket)?;
    let (state, memory) = (saved.state(), saved.memory());
    let body = json!({
        "snapshot_path": state, "resume_vm": true,
        "mem_backend": {"backend_type": "File", "backend_path": memory},
    });
    if rest {
        call(api, "GET", "/", &Value::Null)?;
        std::thread::sleep(REST);
    }
    let asked = Instant::now();
    call(api, "PUT", "/snapshot/load", &body)
        .map_err(|failure| running.explain(&failure.to_string()))?;
    Ok((started.elapsed(), asked.elapsed()))
}

fn restore(monitor: &Monitor, saved: &Saved) -> Result<Duration, Failure> {
    let mut command = Command::new(&monitor.program);
    command.args(["--no-api", "--no-seccomp", "--level", "Error", "--restore"]);
    command.arg(&saved.dir);
    let (mut running, started) =
        Running::start(&mut command, Stdio::piped(), &saved.dir, PATIENCE)?;
    Ok(running.wait_for_mark()? - started)
}

fn restore_by_its_api(monitor: &Monitor, saved: &Saved) -> Result<Duration, Failure> {
    let (mut command, socket) = serving(monitor, saved)?;
    command.arg("--restore");
    command.arg(format!("source_url=file://{}", saved.dir.display()));
    let (running, started) = Running::start(&mut command, Stdio::null(), &saved.dir, PATIENCE)?;
    let api = &mut connect(&socket)?;
    call(api, "PUT", "/api/v1/vm.resume", &Value::Null)
        .map_err(|failure| running.explain(&failure.to_string()))?;
    Ok(started.elapsed())
}
