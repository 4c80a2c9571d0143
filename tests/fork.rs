//! Copies of a running Linux guest, each with a network and a disk of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may be blunt: a failed unwrap is a failed test"
)]

#[path = "harness/mod.rs"]
mod harness;

use harness::{announce, bantam, counting, needs_kvm, network, rounds, sh};
use serde_json::json;
use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Bounds whatever is waited for.
const PATIENCE: Duration = Duration::from_secs(120);

/// A namespace of a copy's own, with the bridge and the tap that its guest knows; gone at the end.
struct Elsewhere(String);

impl Elsewhere {
    fn new(name: &str) -> Self {
        let inside = format!("ip netns exec {name}");
        sh(&format!(
            "ip netns add {name}; {inside} ip link set lo up; {inside} ip link add br0 type bridge;
             {inside} ip address add 10.99.0.1/24 dev br0; {inside} ip link set br0 up;
             {inside} ip tuntap add tap0 mode tap; {inside} ip link set tap0 master br0 up"
        ));
        Self(name.into())
    }

    /// A command that runs `program` there.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// Whether the guest there answers.
    fn reaches_guest(&self) -> bool {
        let address = network::guest_ip(0);
        let mut ping = self.command("ping");
        let ping = ping.args(["-c", "1", "-W", "20", &address]);
        ping.stdout(Stdio::null()).status().unwrap().success()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn copies_of_a_running_guest_each_have_network_disk_and_randomness_of_their_own() {
    needs_kvm();
    announce("fork");
    network::enter(1);
    // On a file system that copies an image at once.
    let place = tempfile::tempdir().unwrap();
    let at = place.path().display();
    sh(&format!(
        "modprobe loop 2>/dev/null || true; modprobe btrfs; truncate -s 300M {at}/disk;
         mkfs.btrfs -q {at}/disk; mkdir {at}/fs; mount {at}/disk {at}/fs; truncate -s 4M {at}/fs/data"
    ));
    let image = |name: &str| place.path().join("fs").join(name);
    let last = 80;
    let mut parent = counting::guest("generic", last, Some(&image("data")))
        .machine(json!({"forkable": true}))
        .start();
    let copies = rounds(3, 12);
    let mut waiting = Vec::new();
    for round in 0..copies {
        let there = Elsewhere::new(&format!("copy{round}"));
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("fork.sock");
        let child = there
            .command(bantam())
            .args(["--no-api", "--level", "info", "--log-path"])
            .arg(dir.path().join("messages"))
            .arg("--fork-socket")
            .arg(&socket)
            .arg("--fork-drive")
            .arg(format!("data={}", image(&format!("copy{round}")).display()))
            .stdin(Stdio::null())
            .stdout(File::create(dir.path().join("console")).unwrap())
            .spawn()
            .unwrap();
        let started = Instant::now();
        while !socket.exists() {
            assert!(
                started.elapsed() < PATIENCE,
                "the copy's process does not wait"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
        waiting.push((there, dir, child));
    }
    // One by one: a copy of a parent that has run on is made of more than one layer.
    for (round, (there, dir, _)) in (0..).zip(&waiting) {
        parent.wait_for(&format!("count {}", 8 + 4 * round));
        let body = json!({"children": [{"socket": dir.path().join("fork.sock")}]});
        let answer = parent.api("PUT", "/vm/fork", body);
        println!("copy {round}: {answer}");
        assert!(there.reaches_guest(), "copy {round} is not reached");
        parent.more_time();
    }
    let mut drawn = Vec::new();
    for (_there, dir, mut child) in waiting {
        let started = Instant::now();
        let status = loop {
            match child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(started.elapsed() < PATIENCE, "a copy does not end"),
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        let console = fs::read_to_string(dir.path().join("console")).unwrap();
        assert!(status.success(), "{status}: {console}");
        let first = *counting::numbers(&console).first().unwrap();
        counting::check(&console, first, last);
        let random = console
            .lines()
            .find_map(|line| line.strip_prefix("random="));
        drawn.push(random.unwrap().to_owned());
    }
    counting::check_ended(&parent.wait().expect(0), last);
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), copies as usize, "the same randomness twice");
    sh(&format!("umount {at}/fs"));
}
