//! The death of the host: a guest syncs files on a disk that loses what was not flushed, and the whole software host is killed
//! at a random moment. Files that the guest reported as synced must exist.
//!
//! The test starts software hosts on any machine, because it must not cut the power of a hardware host.

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

use harness::volatile_disk::VolatileDisk;
use harness::{Guest, journal, rounds, sh};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// Size of the disk in bytes.
const DISK: u64 = 48 << 20;

/// A process group that ends with the test.
struct Host(Child);

impl Host {
    fn kill(&mut self) {
        // The script that leads the group ends its QEMU.
        let group = Pid::from_raw(i32::try_from(self.0.id()).unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Boots a host with the disk at `socket`, and in it a guest that writes.
fn start(dir: &Path, socket: &Path, guest: &Guest) -> Host {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/harness/kvm-host.sh");
    let drive = format!(
        "-drive file=nbd:unix:{},format=raw,if=virtio,cache=writeback",
        socket.display()
    );
    let inside = format!(
        "{} --no-api --config-file {} >\"$BANTAM_KVM_DIR/console\" 2>\"$BANTAM_KVM_DIR/messages\"",
        harness::bantam(),
        guest.write_config().display()
    );
    let log = File::create(dir.join("host.log")).unwrap();
    let child = Command::new(script)
        .env("BANTAM_KVM_HOST", "software")
        .args(["--timeout", "300", "--qemu-opts", &drive, "--dir"])
        .arg(dir)
        .args(["--", "sh", "-c", &inside])
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .process_group(0)
        .spawn()
        .unwrap();
    Host(child)
}

fn cut(round: u64) {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    sh(&format!(
        "truncate -s {DISK} {0}; mkfs.ext4 -q {0}",
        image.display()
    ));
    let socket = dir.path().join("nbd");
    let disk = VolatileDisk::serve(&socket, fs::read(&image).unwrap());
    let results = dir.path().join("host");
    fs::create_dir(&results).unwrap();
    let guest = Guest::cloud()
        .root("cloud")
        .drive(
            "data",
            Path::new("/dev/vda"),
            serde_json::json!({"cache_type": "Writeback"}),
        )
        .script(journal::WRITER);
    let mut host = start(&results, &socket, &guest);

    let console = || fs::read_to_string(results.join("console")).unwrap_or_default();
    let started = Instant::now();
    while journal::kept(&console()).len() < 3 {
        let log = || fs::read_to_string(results.join("host.log")).unwrap_or_default();
        let ended = host.0.try_wait().unwrap();
        assert!(
            ended.is_none() && started.elapsed() < Duration::from_secs(200),
            "the guest keeps nothing: {ended:?}\n{}\n{}",
            console(),
            log()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let seed = (round + 1).wrapping_mul(6_364_136_223_846_793_005);
    std::thread::sleep(Duration::from_millis((seed >> 33) % 4000));
    host.kill();
    let left = disk.cut_power(seed);
    let console = console();
    let kept = journal::kept(&console).len() as u64;
    assert!(
        disk.flushes() >= kept,
        "{} flushes for {kept} files",
        disk.flushes()
    );
    fs::write(&image, left).unwrap();
    journal::check(&image, &console);
    println!(
        "round {round}: {kept} files kept, {} flushes",
        disk.flushes()
    );
}

#[test]
fn synced_data_survives_the_host_s_death() {
    for round in 0..rounds(2, 20) {
        cut(round.into());
    }
}

/// The disk of this test really loses unflushed data, so it would expose a monitor that does not flush.
#[test]
fn the_disk_loses_unflushed_data() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("nbd");
    let disk = VolatileDisk::serve(&socket, vec![0; 1 << 20]);
    disk.write(0, &[1; 1 << 16]);
    disk.flush();
    disk.write(1 << 16, &[2; 1 << 16]);
    let left = disk.cut_power(1);
    assert_eq!(left[..1 << 16], [1; 1 << 16]);
    let survived = left[1 << 16..2 << 16]
        .iter()
        .filter(|byte| **byte == 2)
        .count();
    assert!(
        (1..1 << 16).contains(&survived),
        "{survived} bytes survived"
    );
}
