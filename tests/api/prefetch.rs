//! The working set of a restored guest: recorded by the first restore, and read ahead by later ones.

use crate::monitor::{Monitor, wait_until};
use crate::snapshot::{counting, load_body, save, ticks_on};
use crate::snapshot_tools::pages;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Loads the snapshot `s`, and resumes the guest if `resumes`.
fn load(dir: &Path, prefetch: &Value, resumes: bool) -> Monitor {
    let monitor = Monitor::start();
    let mut body = load_body(dir, "s");
    body["drive_overrides"] = json!([{"drive_id": "d", "path_on_host": "disk.img"}]);
    if !prefetch.is_null() {
        body["prefetch"] = prefetch.clone();
    }
    body["resume_vm"] = json!(resumes);
    let body = body.to_string();
    monitor.client().put("/snapshot/load", &body).expect(204);
    monitor
}

fn wait_for_message(monitor: &Monitor, text: &str) {
    wait_until(text, || monitor.read("stdout").contains(text).then_some(()));
}

#[test]
fn the_first_restore_records_and_later_ones_read_ahead() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    save(&counting(), dir, "s", "Full");
    let recorded = dir.join("s.memory.workingset");
    for off in [json!(null), json!(false)] {
        ticks_on(&load(dir, &off, true));
        assert!(!recorded.exists());
    }
    let monitor = load(dir, &json!({"record_ms": 100}), true);
    wait_for_message(&monitor, "prefetch: recorded the ");
    ticks_on(&monitor);
    drop(monitor);
    let first = fs::read(&recorded).unwrap();
    assert!(first.len() > 36, "{} bytes", first.len());

    let monitor = load(dir, &json!(true), true);
    wait_for_message(&monitor, "prefetch: read ahead ");
    ticks_on(&monitor);
    drop(monitor);
    assert_eq!(fs::read(&recorded).unwrap(), first, "it is recorded once");

    // A working set that is damaged, or of another snapshot, is not used.
    let mut damaged = first.clone();
    damaged[30] ^= 1;
    fs::write(&recorded, &damaged).unwrap();
    let monitor = load(dir, &json!({"record_ms": 60000}), true);
    wait_for_message(&monitor, "is recorded again: it is damaged");
    ticks_on(&monitor);
    // The first pause ends the recording.
    let pause = r#"{"state": "Paused"}"#;
    monitor.client().patch("/vm", pause).expect(204);
    wait_for_message(&monitor, "prefetch: recorded the ");
    drop(monitor);
    assert_ne!(fs::read(&recorded).unwrap(), damaged);

    save(&counting(), dir, "s", "Full");
    let monitor = load(dir, &json!({"record_ms": 1}), true);
    wait_for_message(&monitor, "is recorded again: it is of another snapshot");
    wait_for_message(&monitor, "prefetch: recorded the ");
}

#[test]
fn prefetch_does_not_change_memory() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    save(&counting(), dir, "s", "Full");
    let monitor = load(dir, &json!({"record_ms": 200}), true);
    wait_for_message(&monitor, "prefetch: recorded the ");
    drop(monitor);
    let monitor = load(dir, &json!(true), false);
    wait_for_message(&monitor, "prefetch: read ahead ");
    let create = json!({
        "snapshot_path": dir.join("again.state"), "mem_file_path": dir.join("again.memory"),
    });
    let create = create.to_string();
    monitor
        .client()
        .put("/snapshot/create", &create)
        .expect(204);
    let before = pages(dir, "s.state", "s.memory");
    let after = pages(dir, "again.state", "again.memory");
    let differ = before.chunks(4096).zip(after.chunks(4096));
    let differ = differ.filter(|(before, after)| before != after).count();
    // The snapshot's id and the generation id.
    assert!(differ <= 3, "{differ} pages differ");
}

#[test]
fn a_failed_recording_is_reported_and_the_guest_continues() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    save(&counting(), dir, "s", "Full");
    fs::create_dir(dir.join("s.memory.workingset.partial")).unwrap();
    let monitor = load(dir, &json!(true), true);
    wait_for_message(&monitor, "s.memory.workingset is not recorded: ");
    ticks_on(&monitor);
    let mut body = load_body(dir, "s");
    body["mem_backend"]["backend_type"] = json!("Uffd");
    for (prefetch, why) in [
        (json!({"record_ms": 0}), "record_ms must be"),
        (json!({"record_ms": 600_001}), "record_ms must be"),
        (json!(true), "needs a memory file"),
        (json!({"record": 1}), "prefetch"),
    ] {
        body["prefetch"] = prefetch;
        let monitor = Monitor::start();
        let answer = monitor.client().put("/snapshot/load", &body.to_string());
        let answer = answer.expect(400);
        assert!(
            answer.body.contains(why) || why == "prefetch",
            "{}",
            answer.body
        );
    }
}
