//! Snapshots of the small guest: writing, loading, and untrusted bytes.

use crate::chance::Chance;
use crate::monitor::{Monitor, rounds, said_by_guest, wait_until};
use crate::saved::{edit, state};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

pub const PAUSE: &str = r#"{"state": "Paused"}"#;
pub const RESUME: &str = r#"{"state": "Resumed"}"#;

/// Starts a counting guest with a disk and dirty tracking.
pub fn counting() -> Monitor {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let machine = r#"{"vcpu_count": 2, "mem_size_mib": 128, "track_dirty_pages": true}"#;
    client.put("/machine-config", machine).expect(204);
    let drive = json!({
        "drive_id": "d", "is_root_device": false, "path_on_host": monitor.path("disk.img"),
    });
    client.put("/drives/d", &drive.to_string()).expect(204);
    monitor.boot();
    monitor
}

pub fn create(monitor: &Monitor, dir: &Path, name: &str, kind: &str) -> crate::client::Answer {
    let body = json!({
        "snapshot_path": dir.join(format!("{name}.state")),
        "mem_file_path": dir.join(format!("{name}.memory")),
        "snapshot_type": kind,
    });
    monitor.client().put("/snapshot/create", &body.to_string())
}

/// Saves the guest and resumes it.
pub fn save(monitor: &Monitor, dir: &Path, name: &str, kind: &str) {
    monitor.client().patch("/vm", PAUSE).expect(204);
    create(monitor, dir, name, kind).expect(204);
    monitor.client().patch("/vm", RESUME).expect(204);
}

pub fn load_body(dir: &Path, name: &str) -> Value {
    json!({
        "snapshot_path": dir.join(format!("{name}.state")),
        "mem_backend": {
            "backend_type": "File", "backend_path": dir.join(format!("{name}.memory")),
        },
        "resume_vm": true,
    })
}

/// Starts a process with the guest of a snapshot. Its drive is an image of its own.
pub fn restored(dir: &Path, name: &str) -> Monitor {
    let monitor = Monitor::start();
    let mut body = load_body(dir, name);
    body["drive_overrides"] = json!([{"drive_id": "d", "path_on_host": "disk.img"}]);
    body["track_dirty_pages"] = json!(true);
    monitor
        .client()
        .put("/snapshot/load", &body.to_string())
        .expect(204);
    monitor
}

/// Returns the numbers that the guest of `monitor` printed.
pub fn ticks(monitor: &Monitor) -> Vec<u64> {
    let said = said_by_guest(&monitor.read("stdout"));
    let ticks = said.lines().filter_map(|line| line.strip_prefix("tick "));
    // The last number may be incomplete.
    let whole = ticks.filter(|number| number.len() == 16);
    whole
        .map(|number| u64::from_str_radix(number, 16).unwrap())
        .collect()
}

/// Waits until the guest continues without a missing or repeated number. Returns the first number.
pub fn ticks_on(monitor: &Monitor) -> u64 {
    let first = wait_until("ticks", || ticks(monitor).get(2).copied());
    let all = ticks(monitor);
    let in_order = all.windows(2).all(|pair| pair[1] == pair[0] + 1);
    assert!(in_order, "{all:x?}");
    first
}

/// Returns the error of a load. The process must then end without a guest.
pub fn refused(body: &Value) -> String {
    let monitor = Monitor::start();
    let answer = monitor.client().put("/snapshot/load", &body.to_string());
    let text = answer.expect(400).body;
    let (status, stdout) = monitor.wait();
    assert_eq!(status, 1, "{stdout}");
    assert!(!stdout.contains("tick"), "{stdout}");
    text
}

#[test]
fn console_input_and_disk_survive_a_restore() {
    let files = tempfile::tempdir().unwrap();
    let monitor = counting();
    save(&monitor, files.path(), "s", "Full");
    ticks_on(&monitor);
    let taken = refused(&load_body(files.path(), "s"));
    assert!(
        taken.contains("disk.img"),
        "the parent has its disk: {taken}"
    );
    drop(monitor);
    let monitor = restored(files.path(), "s");
    let config = monitor.client().get("/vm/config").expect(200).json();
    assert_eq!(config["machine-config"]["vcpu_count"], 2);
    assert_eq!(config["drives"][0]["path_on_host"], "disk.img");
    drop(monitor);
}

#[test]
fn diffs_load_with_their_bases() {
    let files = tempfile::tempdir().unwrap();
    let monitor = counting();
    save(&monitor, files.path(), "full", "Full");
    let mut saved_at = Vec::new();
    for name in ["one", "two", "three"] {
        let before = ticks(&monitor).len();
        wait_until("ticks", || (ticks(&monitor).len() > before).then_some(()));
        saved_at.push(ticks(&monitor).len() as u64);
        save(&monitor, files.path(), name, "Diff");
        let blocks = |name: &str| {
            let path = files.path().join(format!("{name}.memory"));
            fs::metadata(path).unwrap().blocks()
        };
        assert!(blocks(name) <= blocks("full"), "{name}");
    }
    drop(monitor);
    for (name, at) in ["one", "two", "three"].iter().zip(saved_at) {
        let monitor = restored(files.path(), name);
        let now = ticks_on(&monitor);
        assert!(now >= at && now < at + 10, "{name}: {at:x}, then {now:x}");
    }
    // Moved together, the files load, too.
    let elsewhere = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(files.path()).unwrap() {
        let path = entry.unwrap().path();
        fs::rename(&path, elsewhere.path().join(path.file_name().unwrap())).unwrap();
    }
    ticks_on(&restored(elsewhere.path(), "three"));
    // Another snapshot in the base's place is reported.
    fs::copy(
        elsewhere.path().join("two.state"),
        elsewhere.path().join("one.state"),
    )
    .unwrap();
    let text = refused(&load_body(elsewhere.path(), "two"));
    assert!(text.contains("is a diff on snapshot"), "{text}");
}

#[test]
fn a_diff_over_its_own_base_is_written_in_full() {
    let files = tempfile::tempdir().unwrap();
    let monitor = counting();
    save(&monitor, files.path(), "s", "Full");
    save(&monitor, files.path(), "s", "Diff");
    save(&monitor, files.path(), "diff", "Diff");
    // The memory file under another name is recognized, too.
    fs::hard_link(
        files.path().join("s.memory"),
        files.path().join("other.memory"),
    )
    .unwrap();
    save(&monitor, files.path(), "other", "Diff");
    save(&monitor, files.path(), "s", "Diff");
    drop(monitor);
    for name in ["s", "other"] {
        ticks_on(&restored(files.path(), name));
    }
    // The earlier diff has lost its base, and the error says so.
    let text = refused(&load_body(files.path(), "diff"));
    assert!(text.contains("is a diff on snapshot"), "{text}");
}

#[test]
fn a_diff_after_a_restart_is_written_in_full() {
    let files = tempfile::tempdir().unwrap();
    let monitor = Monitor::start();
    let machine = r#"{"vcpu_count": 1, "mem_size_mib": 128, "track_dirty_pages": true, "on_reboot": "restart"}"#;
    monitor.client().put("/machine-config", machine).expect(204);
    monitor.boot();
    save(&monitor, files.path(), "s", "Full");
    let keys = r#"{"action_type": "SendCtrlAltDel"}"#;
    monitor.client().put("/actions", keys).expect(204);
    let ready = |text: String| (text.matches("GUEST-READY").count() == 2).then_some(());
    // A message may come in the middle of the guest's line.
    let said = || said_by_guest(&monitor.read("stdout"));
    wait_until("the guest again", || ready(said()));
    save(&monitor, files.path(), "again", "Diff");
    let saved = state(&files.path().join("again.state"));
    assert_eq!(saved["memory"]["base"], Value::Null);
}

#[test]
fn without_dirty_tracking_diffs_are_found_by_comparing() {
    let files = tempfile::tempdir().unwrap();
    let monitor = Monitor::running();
    save(&monitor, files.path(), "full", "Full");
    save(&monitor, files.path(), "untracked", "Diff");
    drop(monitor);
    let monitor = Monitor::start();
    let body = load_body(files.path(), "full").to_string();
    monitor.client().put("/snapshot/load", &body).expect(204);
    ticks_on(&monitor);
    save(&monitor, files.path(), "diff", "Diff");
    let blocks = |name: &str| fs::metadata(files.path().join(name)).unwrap().blocks();
    assert!(blocks("diff.memory") <= blocks("full.memory"));
    // There is no memory file with all pages to compare with.
    ticks_on(&monitor);
    save(&monitor, files.path(), "next", "Diff");
    let lies_on = |name: &str| {
        let saved = state(&files.path().join(format!("{name}.state")));
        saved["memory"]["base"].clone()
    };
    assert!(lies_on("diff").is_object());
    assert_eq!(lies_on("next"), Value::Null);
    drop(monitor);
    for name in ["diff", "next", "untracked"] {
        let monitor = Monitor::start();
        let body = load_body(files.path(), name).to_string();
        monitor.client().put("/snapshot/load", &body).expect(204);
        ticks_on(&monitor);
    }
}

/// Name of the attempt, change to the snapshot, and expected error.
type Attempt<'a> = (&'static str, Box<dyn Fn() + 'a>, &'static str);

#[test]
fn invalid_snapshots_are_reported_and_nothing_starts() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let monitor = counting();
    save(&monitor, dir, "s", "Full");
    save(&monitor, dir, "other", "Full");
    wait_until("ticks", || (ticks(&monitor).len() > 8).then_some(()));
    save(&monitor, dir, "later", "Full");
    drop(monitor);
    let state = fs::read(dir.join("s.state")).unwrap();
    let attempts: Vec<Attempt<'_>> = vec![
        (
            "cut",
            Box::new(|| fs::write(dir.join("s.state"), &state[..state.len() / 2]).unwrap()),
            "truncated",
        ),
        (
            "garbage",
            Box::new(|| fs::write(dir.join("s.state"), vec![7; 999]).unwrap()),
            "not a snapshot",
        ),
        (
            "empty",
            Box::new(|| fs::write(dir.join("s.state"), "").unwrap()),
            "not a snapshot",
        ),
        (
            "vCPUs",
            Box::new(|| {
                edit(&dir.join("s.state"), |s| {
                    s["config"]["machine-config"]["vcpu_count"] = json!(1)
                })
            }),
            "2 vCPUs",
        ),
        (
            "memory",
            Box::new(|| {
                edit(&dir.join("s.state"), |s| {
                    s["config"]["machine-config"]["mem_size_mib"] = json!(64)
                })
            }),
            "the memory has",
        ),
        (
            "no vCPU",
            Box::new(|| edit(&dir.join("s.state"), |s| s["machine"]["vcpus"] = json!([]))),
            "0 vCPUs",
        ),
        (
            "devices",
            Box::new(|| {
                edit(&dir.join("s.state"), |s| {
                    s["machine"]["devices"] = json!([])
                })
            }),
            "the devices drive d",
        ),
        (
            "CPU",
            Box::new(|| {
                edit(&dir.join("s.state"), |s| {
                    s["machine"]["vcpus"][0]["cpuid"] = json!("")
                })
            }),
            "was saved on a processor",
        ),
        (
            "PIC",
            Box::new(|| {
                edit(&dir.join("s.state"), |s| {
                    s["machine"]["vm"]["irqchips"] = json!([])
                })
            }),
            "interrupt controllers",
        ),
        (
            "registers",
            Box::new(|| {
                edit(&dir.join("s.state"), |s| {
                    s["machine"]["vcpus"][1]["regs"] = json!("AAAA")
                })
            }),
            "bytes where",
        ),
        (
            "queues",
            Box::new(|| {
                edit(&dir.join("s.state"), |s| {
                    s["machine"]["devices"][0]["state"]["queues"] = json!([])
                })
            }),
            "queues",
        ),
        (
            "config",
            Box::new(|| edit(&dir.join("s.state"), |s| s["config"]["drives"] = json!(5))),
            "cannot be understood",
        ),
    ];
    let mut body = load_body(dir, "s");
    let spare = tempfile::NamedTempFile::new().unwrap();
    body["drive_overrides"] = json!([{"drive_id": "d", "path_on_host": spare.path()}]);
    for (name, spoil, expected) in attempts {
        fs::write(dir.join("s.state"), &state).unwrap();
        spoil();
        let text = refused(&body);
        assert!(text.contains(expected), "{name}: {text}");
    }
    fs::write(dir.join("s.state"), &state).unwrap();
    let mut swapped = body.clone();
    swapped["mem_backend"]["backend_path"] = json!(dir.join("later.memory"));
    let text = refused(&swapped);
    assert!(text.contains("is the memory of snapshot"), "{text}");
    // One page was damaged.
    let memory = fs::read(dir.join("later.memory")).unwrap();
    let mut damaged = fs::read(dir.join("s.memory")).unwrap();
    let page = damaged.iter().position(|byte| *byte != 0).unwrap();
    damaged[page] ^= 1;
    fs::write(dir.join("later.memory"), damaged).unwrap();
    let text = refused(&swapped);
    assert!(text.contains("is damaged: page"), "{text}");
    fs::write(dir.join("later.memory"), memory).unwrap();
    swapped["mem_backend"]["backend_path"] = json!(dir.join("s.state"));
    let text = refused(&swapped);
    assert!(
        text.contains("it is truncated, or of another snapshot"),
        "{text}"
    );
    for (key, value, expected) in [
        (
            "network_overrides",
            json!([{"iface_id": "x", "host_dev_name": "y"}]),
            "no interface `x`",
        ),
        (
            "drive_overrides",
            json!([{"drive_id": "x", "path_on_host": "y"}]),
            "no drive `x`",
        ),
        ("vsock_override", json!({"uds_path": "y"}), "no vsock"),
        (
            "drive_overrides",
            json!([{"drive_id": "d", "path_on_host": "/no/image"}]),
            "/no/image",
        ),
    ] {
        let mut body = body.clone();
        body[key] = value;
        let text = refused(&body);
        assert!(text.contains(expected), "{key}: {text}");
    }
    // The intact snapshot still loads.
    ticks_on(&restored(dir, "s"));
}

#[test]
fn random_edits_never_crash_the_monitor() {
    let files = tempfile::tempdir().unwrap();
    let monitor = counting();
    save(&monitor, files.path(), "s", "Full");
    drop(monitor);
    let path = files.path().join("s.state");
    let whole = fs::read(&path).unwrap();
    let mut chance = Chance(7);
    for _ in 0..rounds(40, 2000) {
        fs::write(&path, &whole).unwrap();
        // Numbers and texts anywhere in the state are changed, with a valid checksum.
        edit(&path, |state| {
            for _ in 0..3 {
                let mut leaves = Vec::new();
                paths(state, String::new(), &mut leaves);
                let leaf = &leaves[chance.below(leaves.len())];
                *state.pointer_mut(leaf).unwrap() = match chance.below(5) {
                    0 => json!(0),
                    1 => json!(u64::MAX),
                    2 => json!("x"),
                    3 => json!(chance.below(70000)),
                    _ => json!([]),
                };
            }
        });
        let monitor = Monitor::start();
        let body = load_body(files.path(), "s").to_string();
        let answer = monitor.client().put("/snapshot/load", &body);
        if answer.status == 204 {
            std::thread::sleep(Duration::from_millis(20));
            let alive = monitor.client().get("/");
            assert_eq!(alive.status, 200, "{}", alive.body);
        } else {
            let (status, stdout) = monitor.wait();
            assert_eq!(status, 1, "{}\n{stdout}", answer.body);
        }
    }
}

/// Collects the paths of all values in `value` that contain no others.
fn paths(value: &Value, at: String, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            paths(
                value,
                format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")),
                all,
            );
        }),
        Value::Array(items) if !items.is_empty() => items
            .iter()
            .enumerate()
            .for_each(|(index, value)| paths(value, format!("{at}/{index}"), all)),
        _ => all.push(at),
    }
}

#[test]
fn a_full_disk_keeps_the_old_snapshot_and_the_guest() {
    // A file system of its own, visible to this thread and its children only.
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_PRIVATE | MsFlags::MS_REC, none).unwrap();
    let small = tempfile::tempdir().unwrap();
    let size = Some("size=512k");
    mount(
        Some("tmpfs"),
        small.path(),
        Some("tmpfs"),
        MsFlags::empty(),
        size,
    )
    .unwrap();
    let monitor = counting();
    save(&monitor, small.path(), "s", "Full");
    fs::write(small.path().join("filler"), vec![1; 420 << 10]).unwrap();
    monitor.client().patch("/vm", PAUSE).expect(204);
    let answer = create(&monitor, small.path(), "s", "Full").expect(400);
    assert!(answer.body.contains("No space left"), "{}", answer.body);
    monitor.client().patch("/vm", RESUME).expect(204);
    let before = ticks(&monitor).len();
    wait_until("ticks", || {
        (ticks(&monitor).len() > before + 2).then_some(())
    });
    let mut names: Vec<_> = fs::read_dir(small.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["filler", "s.memory", "s.state"]);
    drop(monitor);
    ticks_on(&restored(small.path(), "s"));
    // The pages written in between count for the next diff: see `Machine::return_dirty`.
    nix::mount::umount(small.path()).unwrap();
}
