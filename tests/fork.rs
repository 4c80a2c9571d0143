//! Copies of a running Linux guest, each with its own network and disk.

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

use harness::vsock::dial;
use harness::{
    Guest, announce, bantam, counting, mount_btrfs, needs_kvm, network, rounds, sh, value,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Bound of all waiting.
const PATIENCE: Duration = Duration::from_secs(120);
/// Bound for a hundred copies at once.
const GREAT_PATIENCE: Duration = Duration::from_secs(1200);

/// A network namespace for a copy, with the bridge and tap that its guest knows. Dropping it deletes the namespace.
struct Elsewhere(String);

impl Elsewhere {
    fn new(name: &str) -> Self {
        sh(&format!(
            "ip netns add {name}
             ip -n {name} -batch - <<END
link set lo up
link add br0 type bridge
address add 10.99.0.1/24 dev br0
link set br0 up
tuntap add tap0 mode tap
link set tap0 master br0 up
END"
        ));
        Self(name.into())
    }

    /// Returns a command that runs `program` in the namespace.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, program]);
        command
    }

    /// Returns whether the guest in the namespace answers.
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

/// A file system that can clone images. Dropping it unmounts it.
struct Images(tempfile::TempDir);

impl Images {
    /// Creates the file system with the image `data` of 4 MiB.
    fn new() -> Self {
        let place = tempfile::tempdir().unwrap();
        let images = Self(place);
        mount_btrfs(
            &images.0.path().join("disk"),
            "300M",
            &images.0.path().join("fs"),
        );
        File::create(images.path("data"))
            .unwrap()
            .set_len(4 << 20)
            .unwrap();
        images
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join("fs").join(name)
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        let at = self.0.path().join("fs");
        let _ = Command::new("umount").arg("-l").arg(at).status();
    }
}

/// A process that waits for a copy and becomes one, with its own network and image.
struct Copy {
    there: Elsewhere,
    dir: tempfile::TempDir,
    child: Child,
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Copy {
    fn start(number: u32, images: &Images) -> Self {
        let there = Elsewhere::new(&format!("copy{number}"));
        let dir = tempfile::tempdir().unwrap();
        let image = images.path(&format!("copy{number}"));
        let child = there
            .command(bantam())
            .args(["--no-api", "--level", "info", "--log-path"])
            .arg(dir.path().join("messages"))
            .arg("--fork-socket")
            .arg(dir.path().join("fork.sock"))
            .arg("--fork-drive")
            .arg(format!("data={}", image.display()))
            .stdin(Stdio::piped())
            .stdout(File::create(dir.path().join("console")).unwrap())
            .spawn()
            .unwrap();
        Self { there, dir, child }
    }

    fn wait_for_socket(&self) {
        let started = Instant::now();
        while !self.socket().exists() {
            assert!(
                started.elapsed() < PATIENCE,
                "the copy's process does not wait"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("fork.sock")
    }

    fn vsock(&self) -> PathBuf {
        self.dir.path().join("v.sock")
    }

    fn console(&self) -> String {
        let console = fs::read(self.dir.path().join("console")).unwrap();
        String::from_utf8_lossy(&console).into_owned()
    }

    /// Types `line` on the console.
    fn tell(&mut self, line: &str) {
        let console = self.child.stdin.as_mut().unwrap();
        writeln!(console, "{line}").unwrap();
    }

    fn value(&self, key: &str) -> String {
        value(&self.console(), key).into()
    }

    fn wait(&mut self, patience: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            let waited = started.elapsed();
            assert!(waited < patience, "a copy does not end: {}", self.console());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Returns its private memory in KiB.
    fn private_kib(&self) -> u64 {
        let rollup = format!("/proc/{}/smaps_rollup", self.child.id());
        let rollup = fs::read_to_string(rollup).unwrap();
        let line = rollup
            .lines()
            .find(|line| line.starts_with("Private_Dirty:"));
        let kib = line.and_then(|line| line.split_whitespace().nth(1));
        kib.unwrap().parse().unwrap()
    }
}

#[test]
fn copies_have_their_own_network_disk_and_random_numbers() {
    needs_kvm();
    announce("fork");
    network::enter(1);
    let images = Images::new();
    let last = 80;
    let mut parent = counting::guest("generic", last, Some(&images.path("data")))
        .machine(json!({"forkable": true}))
        .start();
    let mut copies: Vec<_> = (0..rounds(2, 12))
        .map(|number| Copy::start(number, &images))
        .collect();
    copies.iter().for_each(Copy::wait_for_socket);
    // One by one: a copy of a parent that continued to run has more than one layer.
    for (round, copy) in copies.iter().enumerate() {
        parent.wait_for(&format!("count {}", 8 + 4 * round));
        let answer = parent.api(
            "PUT",
            "/vm/fork",
            json!({"children": [{"socket": copy.socket()}]}),
        );
        println!("copy {round}: {answer}");
        assert!(copy.there.reaches_guest(), "copy {round} is not reached");
        parent.more_time();
    }
    let mut drawn = Vec::new();
    for copy in &mut copies {
        let status = copy.wait(PATIENCE);
        let console = copy.console();
        assert!(status.success(), "{status}: {console}");
        let first = *counting::numbers(&console).first().unwrap();
        counting::check(&console, first, last);
        drawn.push(copy.value("random"));
    }
    counting::check_ended(&parent.wait().expect(0), last);
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), copies.len(), "the same randomness twice");
}

/// Fails unless a `line`, whose `end` is sent last, is echoed by port 5000 of the guest over `stream`.
fn echoes(stream: &UnixStream, end: &str, line: &str) {
    (&*stream).write_all(format!("{end}\n").as_bytes()).unwrap();
    let mut got = String::new();
    BufReader::new(stream).read_line(&mut got).unwrap();
    assert_eq!(got.trim_end(), line);
}

/// Returns a guest that receives a stream from `port` of the host and echoes others. When it reads a number it writes the
/// number to its disk, prints what it reads there, draws a random number, and ends.
fn receiving(images: &Images, port: u16) -> Guest {
    let guest = Guest::new("generic", "vmlinuz").root("generic");
    let vsock = json!({"guest_cid": 3, "uds_path": guest.dir().join("v.sock")});
    let written = json!({"cache_type": "Writeback"});
    guest
        .drive("data", &images.path("data"), written)
        .entropy()
        .args(&network::guest_address(0))
        .interface("tap0")
        .section("vsock", vsock)
        .machine(json!({"forkable": true}))
        .api()
        .script(&format!(
            "modprobe vmw_vsock_virtio_transport
             disk=/dev/disk/by-id/virtio-data
             echo 4711 | dd of=$disk bs=512 conv=sync,fsync 2>/dev/null
             bantam-vsock echo 5000 &
             (nc 10.99.0.1 {port} | sha256sum | sed 's/ .*//; s/^/received=/'; echo received=all) &
             read -r number </dev/console
             # A hundred guests on one processor may have a kernel complain in the middle of a line.
             dmesg -n 1
             was=$(dd if=$disk bs=512 count=1 iflag=direct 2>/dev/null | head -n 1)
             echo $number | dd of=$disk bs=512 conv=sync,fsync 2>/dev/null
             echo disk=$was,$(dd if=$disk bs=512 count=1 iflag=direct 2>/dev/null | head -n 1)
             echo random=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n')
             poweroff -f; sleep 60"
        ))
}

#[test]
fn many_copies_of_a_guest_with_open_streams_continue() {
    needs_kvm();
    announce("fork, many at once");
    network::enter(1);
    let images = Images::new();
    let listener = TcpListener::bind((network::HOST, 0)).unwrap();
    let mut parent = receiving(&images, listener.local_addr().unwrap().port()).start();
    let many = rounds(4, 100);
    let mut copies: Vec<_> = (0..many)
        .map(|number| Copy::start(number, &images))
        .collect();
    copies.iter().for_each(Copy::wait_for_socket);
    parent.more_time();
    parent.wait_for("vsock=listening");
    let stream = dial(&parent.dir().join("v.sock"), 5000, PATIENCE);
    echoes(&stream, "before", "before");
    let (mut sending, _) = listener.accept().unwrap();
    let mut digest = Sha256::new();
    let mut send = |parts: std::ops::Range<u8>| {
        for part in parts {
            let block: Vec<u8> = (0..=u8::MAX)
                .cycle()
                .skip(part.into())
                .take(1 << 16)
                .collect();
            sending.write_all(&block).unwrap();
            digest.update(&block);
        }
    };
    send(0..20);
    (&stream).write_all(b"across").unwrap();
    let children: Vec<_> = copies
        .iter()
        .map(|copy| json!({"socket": copy.socket(), "vsock_override": {"uds_path": copy.vsock()}}))
        .collect();
    let answer = parent.api("PUT", "/vm/fork", json!({"children": children}));
    let answer: Value = serde_json::from_str(&answer).unwrap();
    send(20..60);
    echoes(&stream, " the fork", "across the fork");
    check_copies(&mut copies);
    let kib: u64 = copies.iter().map(Copy::private_kib).sum();
    println!(
        "{many} copies: {answer}, {} KiB private to each",
        kib / u64::from(many)
    );
    end_copies(&mut copies);
    // The parent is not affected.
    parent.more_time();
    echoes(&stream, "after", "after");
    send(60..80);
    drop(sending);
    parent.wait_for("received=all");
    let digest = digest.finalize();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let received = format!("received={digest}");
    assert!(parent.console().contains(&received), "{}", parent.console());
    drop(parent.kill());
    let data = fs::read(images.path("data")).unwrap();
    assert_eq!(&data[..5], b"4711\n");
}

/// Fails unless each copy is reachable by its network and its vsock.
fn check_copies(copies: &mut [Copy]) {
    for (number, copy) in copies.iter().enumerate() {
        assert!(copy.there.reaches_guest(), "copy {number} is not reached");
        let line = format!("copy {number}");
        echoes(&dial(&copy.vsock(), 5000, PATIENCE), &line, &line);
    }
}

/// Fails unless each copy has the disk of the fork, writes to its own, and draws its own random number.
fn end_copies(copies: &mut [Copy]) {
    for (number, copy) in copies.iter_mut().enumerate() {
        copy.tell(&number.to_string());
    }
    let mut drawn = Vec::new();
    for (number, copy) in copies.iter_mut().enumerate() {
        let status = copy.wait(GREAT_PATIENCE);
        assert!(status.success(), "{status}: {}", copy.console());
        assert_eq!(copy.value("disk"), format!("4711,{number}"));
        drawn.push(copy.value("random"));
    }
    drawn.sort();
    drawn.dedup();
    assert_eq!(drawn.len(), copies.len(), "the same randomness twice");
}
