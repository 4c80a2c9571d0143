//! Snapshots and forks under strace: a guest that is saved and copied, and one that is restored with its working set.

use super::harness::{Guest, Running, bantam, http, payload};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Code that writes to memory and prints in an endless loop.
fn writing() -> Vec<u8> {
    let mut code = vec![0xc6, 0x04, 0x25, 0, 0, 0x20, 0, 7]; // mov byte [0x200000], 7
    code.extend(payload::print("up "));
    let back = i32::try_from(code.len() + 5).unwrap();
    code.push(0xe9); // jmp to the start
    code.extend((-back).to_le_bytes());
    code
}

fn wait_for(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < super::features::PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Ends a monitor, even one whose strace ended without it.
fn end(pid: u32) {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
    let children = children.unwrap_or_default();
    let own = children.split_whitespace().map(|pid| pid.parse().unwrap());
    for pid in own.chain([pid.try_into().unwrap()]) {
        // strace may have ended with the monitor.
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

fn create(running: &Running, dir: &Path, name: &str, kind: &str) -> (u16, String) {
    let body = json!({
        "snapshot_path": dir.join(format!("{name}.state")),
        "mem_file_path": dir.join(format!("{name}.memory")),
        "snapshot_type": kind,
    });
    running.ask("PUT", "/snapshot/create", &body.to_string())
}

/// Starts a process that waits for a copy, with an image for its drive if `own`.
fn waiting(dir: &Path, name: &str, own: bool) -> Child {
    let socket = dir.join(name);
    let mut command = Command::new(bantam());
    command
        .arg("--no-api")
        .arg("--fork-socket")
        .arg(&socket)
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    if own {
        let image = dir.join("copied.img");
        command
            .arg("--fork-drive")
            .arg(format!("data={}", image.display()));
    }
    let child = command.spawn().unwrap();
    wait_for("a process that waits", || socket.exists());
    child
}

fn set(running: &Running, state: &str) {
    running.api("PATCH", "/vm", json!({"state": state}));
}

/// Saves a guest to `dir`, in full and as a diff, and copies it.
pub fn saved_and_copied(command: Command, dir: &Path) {
    let image = dir.join("data.img");
    File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let guest = Guest::bare(&payload::write(dir, &writing()))
        .mem_mib(32)
        .drive("data", &image, json!({"is_read_only": true}))
        .machine(json!({"forkable": true}))
        .api();
    let mut running = guest.start_under(command);
    running.wait_for("up up");
    set(&running, "Paused");
    assert_eq!(create(&running, dir, "s", "Full").0, 204);
    assert_eq!(create(&running, dir, "d", "Diff").0, 204);
    // The memory is written, and then cannot be renamed.
    let (status, answer) = create(&running, &dir.join("none"), "s", "Full");
    assert_eq!(status, 400, "{answer}");
    let nowhere = json!({"snapshot_path": "/nonexistent/s", "mem_file_path": dir.join("gone")});
    let (status, answer) = running.ask("PUT", "/snapshot/create", &nowhere.to_string());
    assert_eq!(status, 400, "{answer}");
    set(&running, "Resumed");
    // First the drive is cloned, if the file system can; then the guest is copied twice more.
    for (name, own) in [("one", true), ("two", false), ("three", false)] {
        let mut child = waiting(dir, name, own);
        let body = json!({"children": [{"socket": dir.join(name)}]});
        let (status, answer) = running.ask("PUT", "/vm/fork", &body.to_string());
        assert!(status == 200 || own, "{answer}");
        child.kill().unwrap();
        child.wait().unwrap();
        running.more_time();
    }
    end(running.child.id());
    running.child.wait().unwrap();
}

/// Restores the guest of `dir` and saves a diff without dirty tracking. `prefetch` is the key of the load.
pub fn restored(mut command: Command, dir: &Path, prefetch: Value) {
    let (socket, log) = (dir.join("restored.sock"), dir.join("log"));
    let _ = fs::remove_file(&socket);
    let _ = fs::remove_file(&log);
    let mut child = command
        .arg("--api-sock")
        .arg(&socket)
        .arg("--log-path")
        .arg(&log)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let ask = |path: &str, body: &Value| {
        let method = if path == "/vm" { "PATCH" } else { "PUT" };
        let (status, answer) = http::ask(&socket, method, path, &body.to_string());
        assert_eq!(status, 204, "{path}: {answer}");
    };
    let file = |name: &str| dir.join(name);
    ask(
        "/snapshot/load",
        &json!({
            "snapshot_path": file("s.state"), "resume_vm": true, "prefetch": prefetch,
            "mem_backend": {"backend_type": "File", "backend_path": file("s.memory")},
        }),
    );
    wait_for("the working set", || {
        let said = fs::read_to_string(&log).unwrap_or_default();
        said.contains("prefetch: recorded") || said.contains("prefetch: read ahead")
    });
    ask("/vm", &json!({"state": "Paused"}));
    for (name, kind) in [("compared", "Diff"), ("whole", "Full")] {
        let (state, memory) = (file(&format!("{name}.s")), file(&format!("{name}.m")));
        let body = json!({"snapshot_path": state, "mem_file_path": memory, "snapshot_type": kind});
        ask("/snapshot/create", &body);
    }
    end(child.id());
    child.wait().unwrap();
}
