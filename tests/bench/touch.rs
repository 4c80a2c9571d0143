//! First touch of a restored guest's memory, with and without prefetching.

use crate::api::{call, connect};
use crate::monitors::{Kind, Monitor};
use crate::process::Running;
use crate::report::{Entry, Table};
use crate::{Failure, payload};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
const MEM_MIB: u64 = 128;
const ROUNDS: usize = 10;
/// Recording time of the first restore in milliseconds, which the pause ends earlier.
const RECORD_MS: u64 = 60_000;

/// Measures Bantam.
pub fn measure(monitors: &[Monitor], out: &Path) -> Result<Vec<Table>, Failure> {
    let bantam = monitors.iter().find(|m| m.kind == Kind::Bantam);
    let bantam = bantam.ok_or("Bantam is not here")?;
    let dir = out.join("touch");
    fs::create_dir_all(&dir)?;
    save(bantam, &dir)?;
    let prefetch = json!({"record_ms": RECORD_MS});
    let modes = [
        ("prefetch", &prefetch),
        ("recording", &prefetch),
        ("neither", &Value::Null),
    ];
    let entries = || modes.map(|(name, _)| Entry::new(name));
    let (mut faults, mut times) = (entries(), entries());
    // The first restore records.
    restore(bantam, &dir, &prefetch)?;
    for _ in 0..ROUNDS {
        for (index, (name, prefetch)) in modes.iter().enumerate() {
            let recorded = dir.join("memory.workingset");
            let kept = dir.join("kept");
            if *name == "recording" {
                fs::rename(&recorded, &kept)?;
            }
            let (took, faulted) = restore(bantam, &dir, prefetch)?;
            if *name == "recording" {
                fs::rename(&kept, &recorded)?;
            }
            if let (Some(faults), Some(times)) = (faults.get_mut(index), times.get_mut(index)) {
                faults.add(f64::from(faulted));
                times.add(took.as_secs_f64() * 1e3);
            }
        }
    }
    let note = format!(
        "Bantam; a guest that waits a moment and then changes a byte in each page of 32 MiB, from the answer to its load \
         until it has; the memory's file in the page cache; {ROUNDS} interleaved rounds"
    );
    let table = |title: &str, unit, entries: [Entry; 3]| Table {
        title: title.into(),
        unit,
        note: note.clone(),
        entries: entries.into(),
        cases: true,
        aims: Vec::new(),
    };
    Ok(vec![
        table(
            "A restored guest's first touch: page faults of its vCPU",
            "faults",
            faults,
        ),
        table("A restored guest's first touch: time", "ms", times),
    ])
}

/// Starts a monitor with its API at a socket, which is removed first.
fn serving(bantam: &Monitor, dir: &Path) -> Result<(Running, PathBuf), Failure> {
    let socket = dir.join("api.sock");
    let _ = fs::remove_file(&socket);
    let mut command = Command::new(&bantam.program);
    command.args(["--no-seccomp", "--level", "Error", "--api-sock"]);
    command.arg(&socket);
    let (running, _) = Running::start(&mut command, Stdio::piped(), dir, PATIENCE)?;
    Ok((running, socket))
}

/// Saves a guest that has written to all of its memory.
fn save(bantam: &Monitor, dir: &Path) -> Result<(), Failure> {
    let kernel = payload::write_touching(dir)?;
    let _ = fs::remove_file(dir.join("memory.workingset"));
    let (mut running, socket) = serving(bantam, dir)?;
    let api = &mut connect(&socket)?;
    let machine = json!({"vcpu_count": 1, "mem_size_mib": MEM_MIB});
    call(api, "PUT", "/machine-config", &machine)?;
    let boot = json!({"kernel_image_path": kernel});
    call(api, "PUT", "/boot-source", &boot)?;
    let start = json!({"action_type": "InstanceStart"});
    call(api, "PUT", "/actions", &start)?;
    running.wait_for_mark()?;
    call(api, "PATCH", "/vm", &json!({"state": "Paused"}))?;
    let files = json!({
        "snapshot_path": dir.join("state"), "mem_file_path": dir.join("memory"),
    });
    call(api, "PUT", "/snapshot/create", &files)?;
    Ok(())
}

/// Returns the time until all memory was touched, and the page faults of the vCPU thread.
fn restore(bantam: &Monitor, dir: &Path, prefetch: &Value) -> Result<(Duration, u32), Failure> {
    let (mut running, socket) = serving(bantam, dir)?;
    let api = &mut connect(&socket)?;
    let load = json!({
        "snapshot_path": dir.join("state"), "resume_vm": true, "prefetch": prefetch,
        "mem_backend": {"backend_type": "File", "backend_path": dir.join("memory")},
    });
    call(api, "PUT", "/snapshot/load", &load)?;
    let started = Instant::now();
    // The guest was saved after a mark. The next mark comes when all memory was touched.
    let took = running.wait_for_mark()? - started;
    let faults = vcpu_faults(running.id())?;
    let recorded = dir.join("memory.workingset");
    if !prefetch.is_null() && !recorded.exists() {
        // A pause ends the recording.
        call(api, "PATCH", "/vm", &json!({"state": "Paused"}))?;
        while !recorded.exists() {
            if started.elapsed() > PATIENCE {
                return Err(running.explain("nothing is recorded"));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    Ok((took, faults))
}

/// Returns the page faults of the vCPU thread of `process`.
fn vcpu_faults(process: u32) -> Result<u32, Failure> {
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        // proc_pid_stat(5): minflt is the eighth after the name, which may have spaces.
        let Some((name, rest)) = stat.rsplit_once(')') else {
            continue;
        };
        if name.contains("(fc_vcpu") {
            let faults = rest.split_whitespace().nth(7).ok_or("no minflt")?;
            return Ok(faults.parse()?);
        }
    }
    Err("there is no vCPU's thread".into())
}
