//! Linux guests that are saved and restored, with everything under way: disk, network, vsock, time.
//!
//! They end by powering off, not by their exit port: after a restore KVM says of the guest's task-state segment that it
//! is busy, as processors do, and the emulation of software hosts then denies user space every port.

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

use harness::fault_handler::Handler;
use harness::{Guest, Running, announce, needs_kvm, network, rounds};
use serde_json::{Value, json};

fn pause(running: &Running) {
    running.api("PATCH", "/vm", json!({"state": "Paused"}));
}

/// Counts on the console and on its disk until it has counted far enough, and tells whether anything was lost.
fn counting(last: u32) -> Guest {
    Guest::cloud()
        .root("cloud")
        .vcpus(2)
        .entropy()
        .args(&network::guest_address(0))
        .interface("tap0")
        .scratch("data", 1 << 20)
        .api()
        .script(&format!(
            "modprobe virtio_balloon
             disk=/dev/disk/by-id/virtio-data
             i=0; while [ $i -lt {last} ]; do
               i=$((i + 1)); echo \"count $i\"
               echo $i | dd of=$disk bs=512 seek=$((i % 100)) conv=sync,fsync 2>/dev/null
               [ $(dd if=$disk bs=512 skip=$((i % 100)) count=1 iflag=direct 2>/dev/null | head -n 1) = $i ] || echo lost $i
             done
             dmesg | grep -c -i 'soft lockup\\|stall' | sed 's/^/lockups=/'
             ping -c 1 -W 20 10.99.0.1 >/dev/null && echo network=up
             poweroff -f; sleep 60"
        ))
}

/// Every number was said once.
fn check(running: Running, last: u32) {
    let ended = running.wait().expect(0);
    let counts = ended.console.lines();
    let counts = counts.filter_map(|line| line.strip_prefix("count "));
    let counts: Vec<u32> = counts.map(|n| n.trim_end().parse().unwrap()).collect();
    assert_eq!(counts, (1..=last).collect::<Vec<_>>(), "{}", ended.console);
    assert!(!ended.console.contains("lost "), "{}", ended.console);
    assert_eq!(ended.value("lockups"), "0");
    assert_eq!(ended.value("network"), "up");
}

#[test]
fn a_guest_goes_on_where_it_was_saved() {
    needs_kvm();
    announce("save and restore");
    network::enter(1);
    let last = 40;
    let mut running = counting(last).start();
    for round in 1..=rounds(3, 50) {
        running.wait_for(&format!("count {}", round * 5));
        pause(&running);
        running.save("s", "Full");
        running = running.restore("s", json!({}));
    }
    check(running, last);
    let _ = Value::Null;
}

#[test]
fn another_process_gives_its_memory() {
    needs_kvm();
    announce("page faults served by another process");
    network::enter(1);
    let last = 20;
    let balloon = json!({"amount_mib": 0, "deflate_on_oom": true});
    let guest = counting(last).section("balloon", balloon);
    let mut running = guest.start();
    running.wait_for("count 5");
    pause(&running);
    running.save("s", "Full");
    let socket = running.dir().join("faults");
    let handler = Handler::start(&socket, &running.dir().join("s.memory"));
    let backend = json!({"backend_type": "Uffd", "backend_path": socket});
    running = running.restore("s", json!({"mem_backend": backend}));
    check(running, last);
    let served = handler.finish();
    let all = (256 << 20) / 4096;
    assert!(
        served.given.len() < all / 2,
        "{} of {all} pages",
        served.given.len()
    );
}
