//! Memory served by another process, with a `mem_backend` of the type Uffd.

use crate::fault_handler::Handler;
use crate::monitor::Monitor;
use crate::snapshot::{counting, save, ticks, ticks_on};
use serde_json::{Value, json};
use std::path::Path;

fn load_body(dir: &Path) -> Value {
    json!({
        "snapshot_path": dir.join("s.state"),
        "mem_backend": {"backend_type": "Uffd", "backend_path": dir.join("faults")},
        "drive_overrides": [{"drive_id": "d", "path_on_host": "disk.img"}],
        "track_dirty_pages": true,
        "resume_vm": true,
    })
}

#[test]
fn a_handler_serves_the_touched_pages() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let monitor = counting();
    save(&monitor, dir, "s", "Full");
    let before = ticks(&monitor).last().copied().unwrap();
    drop(monitor);

    let handler = Handler::start(&dir.join("faults"), &dir.join("s.memory"));
    let monitor = Monitor::start();
    let body = load_body(dir).to_string();
    monitor.client().put("/snapshot/load", &body).expect(204);
    let now = ticks_on(&monitor);
    assert!(now > before && now < before + 6, "{before:x}, then {now:x}");
    // A diff has the memory file that the state names as its base.
    save(&monitor, dir, "diff", "Diff");
    save(&monitor, dir, "full", "Full");
    let reached = ticks(&monitor).len();
    drop(monitor);

    let served = handler.finish();
    let regions = served.layout.as_array().unwrap();
    assert_eq!(regions.len(), 1, "{}", served.layout);
    let keys: Vec<_> = regions[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "base_host_virt_addr",
            "offset",
            "page_size",
            "page_size_kib",
            "size"
        ]
    );
    assert_eq!(regions[0]["size"], 128 << 20);
    assert_eq!(regions[0]["offset"], 0);
    assert_eq!(regions[0]["page_size"], 4096);
    assert_eq!(regions[0]["page_size_kib"], 4096, "in bytes");
    // All pages, because the full snapshot looked at each.
    assert_eq!(served.given.len(), (128 << 20) / 4096);

    for name in ["diff", "full"] {
        let monitor = crate::snapshot::restored(dir, name);
        let now = ticks_on(&monitor);
        assert!(now >= reached as u64, "{name}: {reached:x}, then {now:x}");
    }
}

#[test]
fn untouched_pages_are_not_served() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    save(&counting(), dir, "s", "Full");
    let handler = Handler::start(&dir.join("faults"), &dir.join("s.memory"));
    let monitor = Monitor::start();
    let body = load_body(dir).to_string();
    monitor.client().put("/snapshot/load", &body).expect(204);
    ticks_on(&monitor);
    drop(monitor);
    let given = handler.finish().given.len();
    assert!(given < 64, "{given} pages were given");
}

#[test]
fn wrong_memory_and_a_missing_handler_are_reported() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let monitor = counting();
    save(&monitor, dir, "s", "Full");
    save(&monitor, dir, "other", "Full");
    drop(monitor);
    let refused = crate::snapshot::refused(&load_body(dir));
    assert!(
        refused.contains("faults: is the page fault handler running"),
        "{refused}"
    );
    let handler = Handler::start(&dir.join("faults"), &dir.join("other.memory"));
    let refused = crate::snapshot::refused(&load_body(dir));
    assert!(
        refused.contains("faults: is the memory of snapshot"),
        "{refused}"
    );
    drop(handler);
    // A memory file cannot back huge pages.
    let monitor = Monitor::start();
    let mut body = load_body(dir);
    body["huge_pages"] = json!("2M");
    body["mem_backend"]["backend_type"] = json!("File");
    let answer = monitor.client().put("/snapshot/load", &body.to_string());
    assert!(answer.expect(400).body.contains("2M needs"));
}

#[test]
fn huge_pages_are_served_whole() {
    // The host may have no huge pages.
    let pool = "/proc/sys/vm/nr_hugepages";
    let before = std::fs::read_to_string(pool).unwrap();
    std::fs::write(pool, "64").unwrap();
    let now = std::fs::read_to_string(pool).unwrap();
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    if now.trim() == "64" {
        save(&counting(), dir, "s", "Full");
        let handler = Handler::start(&dir.join("faults"), &dir.join("s.memory"));
        let monitor = Monitor::start();
        let mut body = load_body(dir);
        body["huge_pages"] = json!("2M");
        let body = body.to_string();
        monitor.client().put("/snapshot/load", &body).expect(204);
        ticks_on(&monitor);
        drop(monitor);
        let served = handler.finish();
        assert_eq!(served.layout[0]["page_size"], 2 << 20);
        assert!(served.given.iter().all(|offset| offset % (2 << 20) == 0));
    } else {
        eprintln!("skipped: the host has {} huge pages to give", now.trim());
    }
    std::fs::write(pool, before).unwrap();
}
