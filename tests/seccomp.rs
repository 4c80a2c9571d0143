//! Seccomp filters: everything works under them, refused calls are named, and no rule is unused.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may be blunt: a failed unwrap is a failed test"
)]

#[path = "seccomp/features.rs"]
mod features;
#[path = "harness/mod.rs"]
mod harness;
#[path = "seccomp/snapshots.rs"]
mod snapshots;
#[path = "seccomp/trace.rs"]
mod trace;

use harness::{Guest, announce, bantam, needs_kvm, payload};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use trace::{Seen, file, traced};
use vmm::seccomp::rules::Lists;

fn lists() -> Lists {
    vmm::seccomp::parse(Path::new("default.json"), vmm::seccomp::DEFAULT.as_bytes()).unwrap()
}

#[test]
fn every_operation_of_the_api_works_confined() {
    features::operated(Command::new(bantam()));
}

#[test]
fn a_guest_configured_by_the_api_works_confined() {
    let dir = tempfile::tempdir().unwrap();
    features::configured_by_api(Command::new(bantam()), dir.path());
}

#[test]
fn unused_queues_work_confined() {
    features::idle_drivers(Command::new(bantam()));
}

#[test]
fn a_guest_restarts_confined() {
    features::restarted(Command::new(bantam()));
}

#[test]
fn linux_uses_every_device_confined() {
    needs_kvm();
    announce("seccomp linux");
    features::linux(Command::new(bantam()));
}

#[test]
fn linux_restarts_confined() {
    needs_kvm();
    announce("seccomp linux again");
    features::linux_restarted(Command::new(bantam()));
}

/// Writes the output of `--print-seccomp-filter`, changed by `change`, to a file.
fn changed(dir: &Path, change: impl FnOnce(&mut Value)) -> std::path::PathBuf {
    let printed = Command::new(bantam())
        .arg("--print-seccomp-filter")
        .output()
        .unwrap();
    let mut lists: Value = serde_json::from_slice(&printed.stdout).unwrap();
    change(&mut lists);
    let path = dir.join("filter.json");
    fs::write(&path, lists.to_string()).unwrap();
    path
}

fn without(lists: &mut Value, part: &str, syscall: &str) {
    let rules = lists[part]["rules"].as_array_mut().unwrap();
    rules.retain(|rule| rule["syscall"] != syscall);
}

fn run(arguments: &[&str], code: &[u8]) -> Output {
    let dir = tempfile::tempdir().unwrap();
    let guest = Guest::bare(&payload::write(dir.path(), code)).mem_mib(32);
    Command::new("timeout")
        .args(["60", bantam()])
        .args(arguments)
        .args(["--no-api", "--config-file"])
        .arg(guest.write_config())
        .output()
        .unwrap()
}

#[test]
fn a_refused_call_is_named_and_ends_the_process_with_148() {
    let dir = tempfile::tempdir().unwrap();
    for (part, syscall, says) in [
        // The message itself is still written.
        (
            "vcpu",
            "write",
            "thread fc_vcpu 0 made the system call write (1)",
        ),
        (
            "vcpu",
            "ioctl",
            "thread fc_vcpu 0 made the system call ioctl (16)",
        ),
        (
            "main",
            "epoll_ctl",
            "thread main made the system call epoll_ctl (233)",
        ),
    ] {
        let filter = changed(dir.path(), |lists| without(lists, part, syscall));
        let filter = filter.to_str().unwrap();
        let output = run(&["--seccomp-filter", filter], &payload::endless("hi"));
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(148), "{message}");
        assert!(message.contains(says), "{message}");
    }
}

#[test]
fn a_refused_call_is_in_the_log_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let filter = changed(dir.path(), |lists| without(lists, "vcpu", "ioctl"));
    let log = dir.path().join("log");
    let output = run(
        &[
            "--seccomp-filter",
            filter.to_str().unwrap(),
            "--log-path",
            log.to_str().unwrap(),
        ],
        &payload::endless("hi"),
    );
    assert_eq!(output.status.code(), Some(148));
    let text = fs::read_to_string(log).unwrap();
    assert!(
        text.contains("fc_vcpu 0 made the system call ioctl"),
        "{text}"
    );
}

#[test]
fn an_invalid_list_is_refused_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut Value), says: &[&str]| {
        let filter = changed(dir.path(), |lists| change(lists));
        let filter = filter.to_str().unwrap();
        let output = run(&["--seccomp-filter", filter], &payload::exit(3));
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(152), "{message}");
        for text in says.iter().chain(&[filter, "--print-seccomp-filter"]) {
            assert!(message.contains(text), "{text}: {message}");
        }
    };
    refused(
        &|lists| lists["vcpu"]["rules"][1]["syscall"] = json!("raed"),
        &["vcpu.rules[1].syscall", "`raed`"],
    );
    refused(
        &|lists| lists["cpu"] = json!({"rules": []}),
        &["unknown field `cpu`"],
    );
    refused(
        &|lists| lists["api"]["rules"][0]["argument"] = json!(1),
        &["api.rules[0]", "unknown field `argument`"],
    );
    refused(
        &|lists| drop(lists.as_object_mut().unwrap().remove("drive")),
        &["`drive`"],
    );
    refused(
        &|lists| lists["main"]["default_action"] = json!("panic"),
        &["main.default_action", "`panic`"],
    );
    let output = run(&["--seccomp-filter", "/nonexistent"], &payload::exit(3));
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(152), "{message}");
    assert!(message.contains("/nonexistent"), "{message}");
}

/// Returns the `Seccomp:` line of each thread's status: 0 without a filter, 2 with one.
fn modes(arguments: &[&str]) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let guest = Guest::bare(&payload::write(dir.path(), &payload::endless("up")))
        .mem_mib(32)
        .vcpus(2)
        .scratch("data", 1 << 20)
        .api();
    let mut command = Command::new(bantam());
    command.args(arguments);
    let mut running = guest.start_under(command);
    running.wait_for("up");
    let tasks = fs::read_dir(format!("/proc/{}/task", running.child.id())).unwrap();
    let modes = tasks.map(|task| {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.unwrap().trim().to_owned()
        };
        (field("Name:"), field("Seccomp:"))
    });
    // KVM has a thread of its own in this process, which never leaves the kernel.
    let modes: Vec<_> = modes
        .filter(|(name, _)| !name.starts_with("kvm-"))
        .collect();
    drop(running.kill());
    modes
}

#[test]
fn every_thread_is_confined_unless_switched_off() {
    let confined = modes(&[]);
    assert_eq!(confined.len(), 5, "{confined:?}");
    assert!(confined.iter().all(|(_, mode)| mode == "2"), "{confined:?}");
    let free = modes(&["--no-seccomp"]);
    assert_eq!(free.len(), 5, "{free:?}");
    assert!(free.iter().all(|(_, mode)| mode == "0"), "{free:?}");
}

#[test]
fn the_built_in_list_works_as_a_user_file() {
    let dir = tempfile::tempdir().unwrap();
    let filter = changed(dir.path(), |_| ());
    let output = run(
        &["--seccomp-filter", filter.to_str().unwrap()],
        &payload::exit(3),
    );
    assert_eq!(output.status.code(), Some(3));
}

/// Fails unless each traced call is allowed and `unused` is empty.
fn judge(seen: &Seen, unused: &[String]) {
    let refused: Vec<_> = seen.refused.iter().map(String::as_str).collect();
    assert!(
        refused.is_empty() && unused.is_empty(),
        "no rule lets these through:\n{}\nthese rules let nothing through:\n{}",
        refused.join("\n"),
        unused.join("\n")
    );
}

/// Runs the payloads of a few instructions under strace.
fn small_guests(dir: &Path, lists: &Lists) -> Seen {
    let trace = |name: &str| file(dir, name);
    features::operated(traced(&trace("operated")));
    features::configured_by_api(traced(&trace("described")), dir);
    features::idle_drivers(traced(&trace("idle")));
    features::restarted(traced(&trace("restarted")));
    features::terminals(&traced(&trace("quit")), &traced(&trace("signalled")));
    let files = tempfile::tempdir().unwrap();
    snapshots::saved_and_copied(traced(&trace("saved")), files.path());
    let record = json!({"record_ms": 300});
    snapshots::restored(traced(&trace("recorded")), files.path(), record);
    snapshots::restored(traced(&trace("brought")), files.path(), json!(true));
    let mut seen = Seen::default();
    for name in [
        "operated",
        "described",
        "idle",
        "quit",
        "signalled",
        "saved",
        "recorded",
        "brought",
    ] {
        seen.add(&trace(name), lists, false);
    }
    seen.add(&trace("restarted"), lists, true);
    seen
}

#[test]
fn small_guests_make_only_listed_calls() {
    let dir = tempfile::tempdir().unwrap();
    let (seen, lists) = (small_guests(dir.path(), &lists()), lists());
    // Linux guests use the rest.
    println!("not used here:\n{}", seen.unused(&lists).join("\n"));
    judge(&seen, &[]);
}

#[test]
fn every_call_is_listed_and_no_rule_is_unused() {
    needs_kvm();
    announce("seccomp rules");
    let dir = tempfile::tempdir().unwrap();
    let lists = lists();
    let mut seen = small_guests(dir.path(), &lists);
    let linux = file(dir.path(), "linux");
    features::linux(traced(&linux));
    seen.add(&linux, &lists, false);
    let again = file(dir.path(), "again");
    features::linux_restarted(traced(&again));
    seen.add(&again, &lists, true);
    let unused = seen.unused(&lists);
    judge(&seen, &unused);
}
