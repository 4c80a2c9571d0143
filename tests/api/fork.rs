//! Copies of the small guest.

use crate::client::Answer;
use crate::monitor::{Monitor, rounds, wait_until};
use crate::snapshot::{ticks, ticks_on};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use serde_json::json;
use std::fs::{read_dir, read_link};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixListener;
use std::time::Instant;

const MACHINE: &str = r#"{"vcpu_count": 2, "mem_size_mib": 128, "forkable": true}"#;

/// Starts a counting guest that can be copied.
pub fn parent() -> Monitor {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    client.put("/machine-config", MACHINE).expect(204);
    monitor.boot();
    monitor
}

/// Starts a process that waits for a copy.
pub fn waiting() -> Monitor {
    waiting_with(&[])
}

pub fn waiting_with(more: &[&str]) -> Monitor {
    let monitor = Monitor::with(|command, dir| {
        command.arg("--fork-socket").arg(dir.join("fork.sock"));
        command.args(more);
    });
    wait_until("its socket", || {
        monitor.dir().join("fork.sock").exists().then_some(())
    });
    monitor
}

pub fn fork(parent: &Monitor, children: &[&Monitor]) -> Answer {
    let sockets = children.iter().map(|child| child.dir().join("fork.sock"));
    let children: Vec<_> = sockets.map(|socket| json!({"socket": socket})).collect();
    let body = json!({"children": children}).to_string();
    parent.client().put("/vm/fork", &body)
}

/// Waits until `monitor`'s guest prints further numbers.
pub fn continues(monitor: &Monitor) {
    let before = ticks(monitor).len();
    wait_until("ticks", || {
        (ticks(monitor).len() > before + 1).then_some(())
    });
    ticks_on(monitor);
}

#[test]
fn copies_their_copies_and_the_parent_continue() {
    let parent = parent();
    let mut at = 0;
    let mut guests = Vec::new();
    for round in 0..rounds(4, 40) {
        let children = [waiting(), waiting()];
        let answer = fork(&parent, &[&children[0], &children[1]])
            .expect(200)
            .json();
        let layers = answer["layers"].as_u64().unwrap();
        assert!((1..=8).contains(&layers), "round {round}: {answer}");
        let first = children.each_ref().map(ticks_on);
        assert_eq!(first[0], first[1], "they begin at one moment");
        assert!(first[0] > at, "round {round}: {at:x}, {first:x?}");
        at = first[0];
        continues(&parent);
        // The socket's name is free again, and the copy is a guest like any other.
        assert!(!children[0].dir().join("fork.sock").exists());
        let instance = children[0].client().get("/").expect(200).json();
        assert_eq!(instance["state"], "Running");
        let [child, _] = children;
        guests.push(child);
    }
    // A copy of a copy, while both run.
    let grandchild = waiting();
    fork(&guests[0], &[&grandchild]).expect(200);
    ticks_on(&grandchild);
    continues(&guests[0]);
    for guest in &guests {
        continues(guest);
    }
    drop(parent);
    continues(&guests[0]);
    continues(&grandchild);
}

#[test]
fn a_copy_can_be_saved_and_a_restored_guest_copied() {
    let parent = parent();
    let child = waiting();
    fork(&parent, &[&child]).expect(200);
    ticks_on(&child);
    drop(parent);
    let mut client = child.client();
    client.patch("/vm", r#"{"state": "Paused"}"#).expect(204);
    // A paused guest can be copied, too, and stays paused.
    let of_held = waiting();
    fork(&child, &[&of_held]).expect(200);
    ticks_on(&of_held);
    assert_eq!(client.get("/").expect(200).json()["state"], "Paused");
    let files = tempfile::tempdir().unwrap();
    let (state, memory) = (files.path().join("s"), files.path().join("m"));
    let create = json!({"snapshot_path": state, "mem_file_path": memory});
    client
        .put("/snapshot/create", &create.to_string())
        .expect(204);
    drop(child);
    let restored = Monitor::start();
    let load = json!({
        "snapshot_path": state, "resume_vm": true,
        "mem_backend": {"backend_type": "File", "backend_path": memory},
    });
    restored
        .client()
        .put("/snapshot/load", &load.to_string())
        .expect(204);
    ticks_on(&restored);
    let copy = waiting();
    fork(&restored, &[&copy]).expect(200);
    ticks_on(&copy);
    continues(&restored);
}

#[test]
fn a_failed_fork_is_reported_and_the_guest_continues() {
    let plain = Monitor::running();
    let child = waiting();
    let text = fork(&plain, &[&child]).expect(400).body;
    assert!(text.contains("set `forkable`"), "{text}");
    continues(&plain);
    let parent = parent();
    let body = r#"{"children": []}"#;
    let text = parent.client().put("/vm/fork", body).expect(400).body;
    assert!(text.contains("children: is empty"), "{text}");
    let body = r#"{"children": [{"socket": "/nobody"}]}"#;
    let text = parent.client().put("/vm/fork", body).expect(400).body;
    assert!(text.contains("/nobody"), "{text}");
    // A peer that speaks another protocol, or disconnects at once.
    for words in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        b"BANTAMF1\xff\xff\xff\xff",
        b"",
    ] {
        let path = parent.dir().join("other.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let other = std::thread::spawn(move || {
            let _ = listener.accept().unwrap().0.write_all(words);
        });
        let body = json!({"children": [{"socket": path}]}).to_string();
        let text = parent.client().put("/vm/fork", &body).expect(400).body;
        assert!(text.contains("no process waits"), "{text}");
        other.join().unwrap();
        std::fs::remove_file(path).unwrap();
    }
    continues(&parent);
    let huge = r#"{"vcpu_count": 1, "mem_size_mib": 128, "forkable": true, "huge_pages": "2M"}"#;
    let text = Monitor::start()
        .client()
        .put("/machine-config", huge)
        .expect(400)
        .body;
    assert!(text.contains("forkable is true"), "{text}");
}

#[test]
fn a_child_without_a_copy_reports_it_and_ends() {
    let child = waiting();
    let mut stream =
        std::os::unix::net::UnixStream::connect(child.dir().join("fork.sock")).unwrap();
    stream.write_all(b"hello, is this the place?").unwrap();
    let (status, stdout) = child.wait();
    assert_eq!(status, 1, "{stdout}");
    assert!(stdout.contains("no copy was received"), "{stdout}");
    drop(stream);
    // A child that was configured before the copy came keeps its own guest.
    let (parent, child) = (parent(), waiting());
    child.client().put("/machine-config", MACHINE).expect(204);
    fork(&parent, &[&child]).expect(400);
    let (status, stdout) = child.wait();
    assert_eq!(
        (status, stdout.contains("comes too late")),
        (1, true),
        "{stdout}"
    );
    continues(&parent);
}

#[test]
fn a_child_ends_when_its_lifeline_is_closed() {
    let (reader, writer) = std::io::pipe().unwrap();
    fcntl(&reader, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
    let number = reader.as_raw_fd().to_string();
    let lifeline = ["--fork-lifeline", &number];
    let [child, alone] = [waiting_with(&lifeline), waiting_with(&lifeline)];
    let pipe = read_link(format!("/proc/self/fd/{number}")).unwrap();
    drop(reader);
    let parent = parent();
    fork(&parent, &[&child]).expect(200);
    let socket = alone.dir().join("fork.sock");
    drop(writer);
    let (status, stdout) = alone.wait();
    assert_eq!(status, 1, "{stdout}");
    assert!(stdout.contains("before a copy was received"), "{stdout}");
    assert!(!socket.exists());
    // A child that has its guest needs no lifeline.
    continues(&child);
    let own = read_dir(format!("/proc/{}/fd", child.child.id())).unwrap();
    let mut own = own.map(|entry| read_link(entry.unwrap().path()));
    assert!(own.all(|to| !to.is_ok_and(|to| to == pipe)));
    let none = Monitor::with(|command, dir| {
        command.arg("--fork-socket").arg(dir.join("fork.sock"));
        command.args(["--fork-lifeline", "999"]);
    });
    let (status, stdout) = none.wait();
    assert_eq!(status, 1, "{stdout}");
}

#[test]
fn many_copies_of_one_guest_continue_and_share_memory() {
    let parent = parent();
    // All copies are busy, and a hundred take two interpreting processors a while.
    let count = rounds(25, 100).into();
    let children: Vec<_> = (0..count).map(|_| waiting()).collect();
    let started = Instant::now();
    let answer = fork(&parent, &children.iter().collect::<Vec<_>>())
        .expect(200)
        .json();
    assert_eq!(answer["children"], count);
    let took = started.elapsed();
    let mut private = 0;
    for child in &children {
        wait_until("a tick", || ticks(child).first().copied());
        private += child.private_kib();
    }
    continues(&parent);
    let paused = &answer["held_us"];
    println!(
        "{count} copies in {took:?}, the guest paused for {paused} us; all run after {:?}; private: {private} KiB",
        started.elapsed()
    );
    // Each copy's guest writes a few pages, besides the monitor's own.
    assert!(private / count < 4 << 10, "{} KiB each", private / count);
}
