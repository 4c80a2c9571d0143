//! Time from starting a monitor's process until its API socket accepts: the wait of an orchestrator.

use crate::Failure;
use crate::monitors::{Kind, Monitor};
use crate::process::Running;
use crate::report::{Aim, Table};
use crate::startup::interleaved;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// Target, as a share of the best peer's time.
const AIM: f64 = 1.0;
/// Time between two attempts, small against the measured times. It leaves the processor to the monitor.
const PAUSE: Duration = Duration::from_micros(20);

/// Measures the monitors that have the API.
pub fn measure(monitors: &[Monitor], rounds: usize, out: &Path) -> Table {
    let with_api = |m: &&Monitor| matches!(m.kind, Kind::Bantam | Kind::Firecracker);
    let monitors: Vec<Monitor> = monitors.iter().filter(with_api).cloned().collect();
    Table {
        title: "Start to an API that accepts".into(),
        unit: "ms",
        note: format!(
            "fork and exec of the monitor until its socket accepts a client, which tries every {} us; \
             {rounds} interleaved rounds",
            PAUSE.as_micros()
        ),
        entries: interleaved(&monitors, rounds, |monitor| once(monitor, out)),
        cases: false,
        aims: vec![Aim::ShareOfBestPeer(AIM)],
    }
}

fn once(monitor: &Monitor, out: &Path) -> Result<Duration, Failure> {
    let socket = out.join("api.sock");
    match fs::remove_file(&socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e.into()),
        _ => {}
    }
    let mut command = Command::new(&monitor.program);
    command.args(["--no-seccomp", "--level", "Error", "--api-sock"]);
    command.arg(&socket);
    let (running, started) = Running::start(&mut command, Stdio::null(), out, PATIENCE)?;
    while UnixStream::connect(&socket).is_err() {
        if started.elapsed() > PATIENCE {
            return Err(running.explain("its API does not accept"));
        }
        std::thread::sleep(PAUSE);
    }
    let accepted = Instant::now();
    drop(running);
    Ok(accepted - started)
}
