//! Operations that are repeated many times or killed at any moment: a guest that is saved, restored and copied loses nothing
//! and its clocks do not drift, and a killed process leaves nothing behind. Randomness is seeded; `make soak` raises the
//! counts.

use crate::chance::Chance;
use crate::fork::{continues, fork, parent, waiting, waiting_with};
use crate::monitor::{Monitor, rounds, wait_until};
use crate::saved::state;
use crate::snapshot::{
    PAUSE, RESUME, counting, create, load_body, restored, save, ticks, ticks_on,
};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::Child;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Memory by which a process may grow at first.
const SLACK_KIB: u64 = 512;

/// Kills `process` at a random moment of the time that an operation takes, or shortly after.
fn kill_within(time: Duration, chance: &mut Chance, process: &Child) -> JoinHandle<()> {
    let share = u32::try_from(chance.below(1200)).unwrap();
    let pid = Pid::from_raw(process.id().try_into().unwrap());
    let moment = time * share / 1000;
    std::thread::spawn(move || {
        std::thread::sleep(moment);
        kill(pid, Signal::SIGKILL).unwrap();
    })
}

/// Sends a request without waiting for the answer.
fn send(monitor: &Monitor, method: &str, path: &str, body: &Value) {
    let request = crate::client::request(method, path, Some(&body.to_string()));
    monitor.client().send(request.as_bytes());
}

/// Returns a guest's clocks in a snapshot in nanoseconds: the paravirtual clock and the TSC of each vCPU. A TSC that began
/// before the guest is the host's, which an interpreting KVM passes to its guests and nobody sets.
fn clocks(state: &Value, age: Duration) -> Vec<u64> {
    let vm = &state["machine"]["vm"]["clock"];
    let bytes = BASE64_STANDARD.decode(vm.as_str().unwrap()).unwrap();
    let mut all = vec![u64::from_le_bytes(bytes[..8].try_into().unwrap())];
    for vcpu in state["machine"]["vcpus"].as_array().unwrap() {
        let mut msrs = vcpu["msrs"].as_array().unwrap().iter();
        let counter = msrs.find(|msr| msr[0] == 0x10).unwrap()[1].as_u64();
        let khz = vcpu["tsc_khz"].as_u64().unwrap();
        let nanoseconds = u128::from(counter.unwrap()) * 1_000_000 / u128::from(khz);
        if nanoseconds < age.as_nanos() {
            all.push(nanoseconds.try_into().unwrap());
        }
    }
    all
}

/// The time span in which something was done.
type When = (Instant, Instant);

/// Fails unless each clock advanced from `before` to `now` as the host's did.
fn no_drift(context: &str, (before, from): (&[u64], When), (now, to): (&[u64], When)) {
    let (least, most) = (to.0.duration_since(from.1), to.1.duration_since(from.0));
    // The clocks come from different crystals, and are read one after the other.
    let slack = most / 1000 + Duration::from_micros(500);
    for (index, (before, now)) in before.iter().zip(now).enumerate() {
        let went = Duration::from_nanos(now.checked_sub(*before).expect("a clock went back"));
        assert!(
            went + slack >= least && went <= most + slack,
            "{context}: clock {index} went on by {went:?} in {least:?} to {most:?}"
        );
    }
}

#[test]
fn a_guest_survives_many_saves_and_restores() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let began = Instant::now();
    let mut monitor = counting();
    let mut at = 0;
    let mut since: Option<(Vec<u64>, When)> = None;
    let mut sizes: Option<[u64; 4]> = None;
    for round in 0..rounds(20, 200) {
        monitor.client().patch("/vm", PAUSE).expect(204);
        let asked = Instant::now();
        create(&monitor, dir, "s", "Full").expect(204);
        let saved = (asked, Instant::now());
        let memory = fs::metadata(dir.join("s.memory")).unwrap();
        assert_eq!(memory.len(), 128 << 20);
        let state = state(&dir.join("s.state"));
        let now = clocks(&state, began.elapsed());
        if let Some((before, from)) = since.take() {
            no_drift(&format!("round {round}"), (&before, from), (&now, saved));
        }

        let own = [
            memory.blocks() * 512 / 1024,
            fs::metadata(dir.join("s.state")).unwrap().len() / 1024,
            monitor.heap_kib(),
            monitor.descriptors() as u64,
        ];
        // Each later restore must be like the first one.
        if round > 0 {
            let first = *sizes.get_or_insert(own);
            let limits = [16, 1, SLACK_KIB, 1];
            for (index, limit) in limits.into_iter().enumerate() {
                assert!(
                    own[index] <= first[index] + limit,
                    "round {round}: {first:?} became {own:?}"
                );
            }
        }
        assert!(own[0] < 1024, "pages without content are holes");

        let before = ticks(&monitor).last().copied().unwrap_or(at);
        drop(monitor);
        monitor = Monitor::start();
        let mut client = monitor.client();
        let mut body = load_body(dir, "s");
        body["drive_overrides"] = json!([{"drive_id": "d", "path_on_host": "disk.img"}]);
        // The clocks stop until the load, or advance with the host's.
        let realtime = round % 2 == 0;
        body["clock_realtime"] = json!(realtime);
        let asked = Instant::now();
        client.put("/snapshot/load", &body.to_string()).expect(204);
        let loaded = (asked, Instant::now());
        since = Some((now, if realtime { saved } else { loaded }));
        let now = ticks_on(&monitor);
        assert!(
            now > before && now < before + 6,
            "round {round}: {before:x}, then {now:x}"
        );
        at = now;
    }
    let names = fs::read_dir(dir).unwrap().count();
    assert_eq!(names, 2, "nothing is left beside the snapshot");
}

#[test]
fn a_monitor_does_not_grow_by_saving() {
    let files = tempfile::tempdir().unwrap();
    let monitor = counting();
    let mut first = None;
    for round in 0..rounds(20, 200) {
        save(&monitor, files.path(), "s", "Full");
        save(&monitor, files.path(), "d", "Diff");
        let own = (monitor.heap_kib(), monitor.descriptors());
        if round >= 2 {
            let first = *first.get_or_insert(own);
            assert!(
                own.0 <= first.0 + SLACK_KIB && own.1 <= first.1 + 1,
                "round {round}: {first:?} became {own:?}"
            );
        }
    }
    ticks_on(&monitor);
}

#[test]
fn a_monitor_killed_while_saving_leaves_a_loadable_snapshot() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let mut chance = Chance(0x5a7e);
    let mut monitor = counting();
    save(&monitor, dir, "s", "Full");
    monitor.client().patch("/vm", PAUSE).expect(204);
    let started = Instant::now();
    create(&monitor, dir, "s", "Full").expect(204);
    let saving = started.elapsed();
    let mut loading = saving;
    for round in 0..rounds(20, 200) {
        // Killed while it saves over the old snapshot, or a diff beside it.
        let (name, kind) = [("s", "Full"), ("d", "Diff")][chance.below(2)];
        let body = json!({
            "snapshot_path": dir.join(format!("{name}.state")),
            "mem_file_path": dir.join(format!("{name}.memory")),
            "snapshot_type": kind,
        });
        let killer = kill_within(saving, &mut chance, &monitor.child);
        send(&monitor, "PUT", "/snapshot/create", &body);
        killer.join().unwrap();
        monitor.child.wait().unwrap();
        drop(monitor);

        // Killed during the restore.
        let mut doomed = Monitor::start();
        let mut body = load_body(dir, "s");
        body["drive_overrides"] = json!([{"drive_id": "d", "path_on_host": "disk.img"}]);
        body["track_dirty_pages"] = json!(true);
        doomed.client();
        let killer = kill_within(loading, &mut chance, &doomed.child);
        send(&doomed, "PUT", "/snapshot/load", &body);
        killer.join().unwrap();
        doomed.child.wait().unwrap();
        drop(doomed);

        monitor = Monitor::start();
        let mut client = monitor.client();
        let started = Instant::now();
        client.put("/snapshot/load", &body.to_string()).expect(204);
        loading = started.elapsed();
        ticks_on(&monitor);
        let names = fs::read_dir(dir).unwrap().count();
        assert!(names <= 8, "round {round}: files pile up");
        client.patch("/vm", PAUSE).expect(204);
    }
    monitor.client().patch("/vm", RESUME).expect(204);
    save(&monitor, dir, "s", "Full");
    save(&monitor, dir, "d", "Diff");
    let names = fs::read_dir(dir).unwrap().count();
    assert_eq!(names, 4, "what was left over is gone");
    drop(monitor);
    ticks_on(&restored(dir, "d"));
}

/// Returns whether `child` received its guest and runs it. Otherwise it must end.
fn received_its_guest(child: &mut Monitor) -> bool {
    let socket = child.dir().join("fork.sock");
    let continues = wait_until("a guest, or the end", || {
        match child.child.try_wait().unwrap() {
            Some(status) => Some(Err(status)),
            None => (ticks(child).len() > 2).then_some(Ok(())),
        }
    });
    if let Err(status) = continues {
        assert_eq!(status.code(), Some(1), "{}", child.read("stdout"));
        assert!(!socket.exists());
        return false;
    }
    self::continues(child);
    true
}

/// Returns the number of the process's memory files.
fn files_in_memory(monitor: &Monitor) -> usize {
    let fds = fs::read_dir(format!("/proc/{}/fd", monitor.child.id())).unwrap();
    let links = fds.filter_map(|fd| fs::read_link(fd.unwrap().path()).ok());
    links
        .filter(|to| to.to_string_lossy().starts_with("/memfd:"))
        .count()
}

#[test]
fn a_child_killed_at_any_moment_does_not_harm_its_parent() {
    let mut chance = Chance(0xc41d);
    let parent = parent();
    let spare = waiting();
    let started = Instant::now();
    fork(&parent, &[&spare]).expect(200);
    let time = started.elapsed();
    drop(spare);
    let mut first = None;
    for round in 0..rounds(12, 200) {
        let (doomed, child) = (waiting(), waiting());
        let killer = kill_within(time, &mut chance, &doomed.child);
        let answer = fork(&parent, &[&doomed, &child]);
        killer.join().unwrap();
        if answer.status != 200 {
            assert!(answer.body.contains("fork.sock"), "{}", answer.body);
        }
        continues(&parent);
        assert!(files_in_memory(&parent) <= 8, "round {round}");
        let own = (parent.heap_kib(), parent.sockets());
        // By then the parent has all its layers.
        if round > 8 {
            let first = *first.get_or_insert(own);
            assert!(
                own.0 <= first.0 + SLACK_KIB && own.1 <= first.1 + 1,
                "round {round}: {first:?} became {own:?}"
            );
        }
    }
    let last = waiting();
    fork(&parent, &[&last]).expect(200);
    ticks_on(&last);
}

#[test]
fn a_parent_killed_at_any_moment_leaves_running_copies_only() {
    let mut chance = Chance(0xfa7e);
    let mut parent = parent();
    let spare = waiting();
    let started = Instant::now();
    fork(&parent, &[&spare]).expect(200);
    let time = started.elapsed();
    drop(spare);
    let mut whole = 0;
    for _ in 0..rounds(8, 200) {
        let (reader, writer) = std::io::pipe().unwrap();
        fcntl(&reader, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let number = reader.as_raw_fd().to_string();
        let lifeline = ["--fork-lifeline", &number];
        let children = [(); 2].map(|()| waiting_with(&lifeline));
        drop(reader);
        let sockets = children
            .each_ref()
            .map(|child| child.dir().join("fork.sock"));
        let body = sockets.map(|socket| json!({"socket": socket}));
        let killer = kill_within(time * 2, &mut chance, &parent.child);
        send(&parent, "PUT", "/vm/fork", &json!({"children": body}));
        killer.join().unwrap();
        parent.child.wait().unwrap();
        drop(writer);
        let mut guests = Vec::new();
        for mut child in children {
            if received_its_guest(&mut child) {
                guests.push(child);
            }
        }
        whole += guests.len();
        // One of the copies is the next parent.
        parent = guests.pop().unwrap_or_else(crate::fork::parent);
    }
    println!("{whole} copies outlived their guest");
    let last = waiting();
    fork(&parent, &[&last]).expect(200);
    ticks_on(&last);
}
