//! Guests by name with a real kernel: created by one command, reached by TCP, stopped by the power button, started
//! again with their data, and copied while they run.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

#[path = "harness/mod.rs"]
mod harness;
#[path = "jailer/world.rs"]
mod world;

use harness::{announce, image, mount_btrfs, needs_kvm, sh};
use nix::sched::{CloneFlags, setns};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use world::{World, bantamctl, contains, expect, links};

/// Time limit of a boot to the first answer.
const BOOT: Duration = Duration::from_secs(120);

/// The guest's script: it counts its starts in a file, serves the file, and obeys the power button.
const SCRIPT: &str = r"
modprobe -a button evdev; echo started >>/root/starts; sync
httpd -p 8080 -h /root
for d in /sys/class/input/event*; do grep -q 'Power Button' $d/device/name && e=/dev/input/${d##*/}; done
dd if=$e of=/dev/null bs=24 count=1 2>/dev/null
sync; poweroff -f; sleep 60";

fn run(words: &[&str]) -> String {
    // The commands have time limits of their own.
    let output = Command::new(bantamctl())
        .args(words)
        .stdin(Stdio::null())
        .output();
    let output = output.unwrap();
    expect(&output, 0);
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the guest's output, for the message of a failed test.
fn console() -> String {
    let bantamctl = bantamctl();
    sh(&format!(
        "cat /var/log/bantam/web1.log; timeout 3 {} console web1 </dev/null 2>&1 || true",
        bantamctl.display()
    ))
}

/// Returns the file of starts, which the guest in this thread's network serves.
fn served() -> io::Result<String> {
    let address = "10.88.0.5:8080".parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    stream.write_all(b"GET /starts HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// Waits until the guest serves that file; returns the number of starts in it.
fn starts() -> usize {
    let started = Instant::now();
    loop {
        match served() {
            Ok(text) => return text.matches("started").count(),
            Err(e) => assert!(started.elapsed() < BOOT, "{e}; its console:\n{}", console()),
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// As [`starts`], of the guest's copy `name`.
fn starts_of_copy(name: &str) -> usize {
    let network = format!("/run/netns/bantam-{name}");
    let there = move || {
        setns(fs::File::open(network).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        starts()
    };
    std::thread::spawn(there).join().unwrap()
}

/// Ends the guests, if there are any, even if the test fails.
struct Ended(&'static [&'static str]);

impl Drop for Ended {
    fn drop(&mut self) {
        for name in self.0 {
            let _ = Command::new(bantamctl()).args(["destroy", name]).output();
        }
    }
}

/// Defines the pool `vms` in the directory `pool`, and creates web1 with a volume there and a network, with `more`
/// words.
fn create(world: &World, pool: &Path, more: &[&str]) {
    sh("ip link set lo up");
    let target = pool.to_str().unwrap();
    run(&["pool", "define", "vms", "--type", "dir", "--target", target]);
    run(&["pool", "start", "vms"]);
    fs::write(world.path("script"), SCRIPT).unwrap();
    let script = sh(&format!("base64 -w 0 {}", world.path("script").display()));
    let arguments = format!(
        "console=ttyS0 quiet bantam.ip=10.88.0.5/24 bantam.script={}",
        script.trim()
    );
    let template = image("rootfs-cloud.ext4");
    let disk = format!("pool=vms,size=1,template={}", template.display());
    let (kernel, initrd) = (image("vmlinuz-cloud"), image("initrd-cloud.img"));
    let words = [
        "create",
        "--name",
        "web1",
        "--ram",
        "192",
        "--kernel",
        kernel.to_str().unwrap(),
        "--initrd",
        initrd.to_str().unwrap(),
        "--exec-file",
        harness::bantam(),
        "--boot-args",
        &arguments,
        "--disk",
        &disk,
        "--network",
        "bridge=br0,bridge-address=10.88.0.1/24,address=10.88.0.5/24,guard=on",
    ];
    let text = run(&[&words, more].concat());
    contains(&text, &["web1 is started", "192 MiB"]);
}

#[test]
fn a_guest_keeps_its_data_over_a_shutdown() {
    needs_kvm();
    announce("a guest by name");
    let world = World::new();
    let pool = world.path("volumes");
    fs::create_dir(&pool).unwrap();
    let _ended = Ended(&["web1"]);
    create(&world, &pool, &[]);
    assert_eq!(starts(), 1);
    // The guard has a table.
    contains(&sh("nft list tables"), &["bantam-web1"]);
    contains(&run(&["stop", "web1"]), &["web1 is stopped"]);
    contains(&run(&["list"]), &["web1", "stopped"]);
    assert_eq!(sh("nft list tables"), "");
    assert!(!links().join("\n").contains("br0"));

    run(&["start", "web1"]);
    assert_eq!(starts(), 2);
    run(&["stop", "web1"]);
    run(&["undefine", "web1", "--remove-all-storage"]);
    assert_eq!(fs::read_dir(&pool).unwrap().count(), 0);
}

#[test]
fn copies_have_their_guest_s_address_and_data_in_networks_of_their_own() {
    needs_kvm();
    announce("copies of a guest by name");
    let world = World::new();
    let pool = world.path("volumes");
    mount_btrfs(&world.path("disk"), "2G", &pool);
    {
        let _ended = Ended(&["web1-1", "web1-2", "web1"]);
        create(&world, &pool, &["--forkable"]);
        assert_eq!(starts(), 1);
        let text = run(&["fork", "web1", "--count", "2"]);
        contains(&text, &["web1-1", "web1-2", "web1 was held for"]);
        println!("{text}");
        for copy in ["web1-1", "web1-2"] {
            assert_eq!(starts_of_copy(copy), 1, "{copy}");
        }
        contains(&run(&["list"]), &["web1-1", "web1-2"]);
        // Each obeys its own power button.
        contains(&run(&["stop", "web1-1"]), &["web1-1 is stopped"]);
        assert!(!Path::new("/run/netns/bantam-web1-1").exists());
        assert_eq!(starts_of_copy("web1-2"), 1);
        assert_eq!(starts(), 1);
        run(&["destroy", "web1-2"]);
        let images = fs::read_dir(&pool).unwrap().count();
        assert_eq!(images, 1, "the images of copies go with them");
        run(&["stop", "web1"]);
        run(&["start", "web1"]);
        assert_eq!(starts(), 2);
        run(&["stop", "web1"]);
    }
    sh(&format!("umount {}", pool.display()));
}
