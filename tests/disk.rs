//! Disks: flushed data survives the monitor's death, a flush reaches the host's disk, a read-only drive refuses writes, and an
//! image uses only the space that was written. `power_cut.rs` tests the death of the host.

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

use harness::lifecycle::ELSEWHERE;
use harness::{Guest, announce, journal, needs_kvm, rounds, sh};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

#[test]
fn synced_data_survives_the_monitor_s_death() {
    needs_kvm();
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("data.img");
    sh(&format!(
        "truncate -s 64M {0}; mkfs.ext4 -q {0}",
        image.display()
    ));
    // A fixed seed: the moments differ from round to round, but not from run to run.
    let mut moment = 7_u64;
    for round in 0..rounds(3, 20) {
        announce(&format!("disk death round {round}"));
        let writeback = serde_json::json!({"cache_type": "Writeback"});
        let mut running = Guest::cloud()
            .root("cloud")
            .drive("data", &image, writeback)
            .script(journal::WRITER)
            .start();
        running.wait_for("kept=");
        moment = moment
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        running.run_for(Duration::from_millis((moment >> 33) % 3000));
        let console = running.console();
        drop(running.kill());
        assert!(!journal::kept(&console).is_empty());
        journal::check(&image, &console);
    }
}

#[test]
fn each_flush_of_the_guest_is_an_fdatasync_of_the_host() {
    needs_kvm();
    announce("disk flush");
    let guest = Guest::cloud().not_after(&ELSEWHERE, "strace traces one process only").root("cloud").scratch("data", 16 << 20).script(
        "cd /dev/disk/by-id; flushes() { awk '{print $16}' /sys/block/vdb/stat; }
         for i in 1 2 3 4 5; do dd if=/dev/zero of=virtio-data bs=4k count=1 seek=$i conv=fsync 2>/dev/null; done
         echo flushes=$(flushes); exit 5",
    );
    let trace = guest.dir().join("trace");
    let mut strace = Command::new("strace");
    strace
        .args(["-f", "-e", "trace=fdatasync", "-o"])
        .arg(&trace);
    strace.arg(harness::bantam());
    let ended = guest.start_under(strace).wait().expect(5);
    let trace = std::fs::read_to_string(trace).unwrap();
    let synced = trace
        .lines()
        .filter(|l| l.contains("fdatasync(") && !l.contains("resumed"));
    let flushes: usize = ended.value("flushes").parse().unwrap();
    assert!(flushes >= 5, "the guest flushed {flushes} times");
    assert_eq!(synced.count(), flushes);
}

#[test]
fn unsafe_offers_no_flush() {
    needs_kvm();
    announce("disk unsafe");
    let guest = Guest::cloud();
    let image = guest.dir().join("data.img");
    sh(&format!("truncate -s 1M {}", image.display()));
    let ended = guest
        .drive("data", &image, serde_json::json!({"cache_type": "Unsafe"}))
        .script("echo cache=$(cat /sys/block/vda/queue/write_cache); exit 3")
        .run()
        .expect(3);
    assert_eq!(ended.value("cache"), "write through");
}

#[test]
fn a_read_only_drive_refuses_writes() {
    needs_kvm();
    announce("disk read-only");
    let guest = Guest::cloud();
    let image = guest.dir().join("data.img");
    std::fs::write(&image, vec![7; 4096]).unwrap();
    let ended = guest
        .drive("data", &image, serde_json::json!({"is_read_only": true}))
        .script(
            "d=/dev/disk/by-id/virtio-data; echo ro=$(cat /sys/block/vda/ro)
             dd if=/dev/zero of=$d bs=512 count=1 conv=fsync && exit 9; exit 3",
        )
        .run()
        .expect(3);
    assert_eq!(ended.value("ro"), "1");
    assert_eq!(std::fs::read(&image).unwrap(), vec![7; 4096]);
}

#[test]
fn a_sparse_image_uses_the_written_space_and_a_discard_frees_it() {
    needs_kvm();
    announce("disk sparse");
    let guest = Guest::cloud();
    let image = guest.dir().join("data.img");
    sh(&format!("truncate -s 20G {}", image.display()));
    let used = |image: &std::path::Path| std::fs::metadata(image).unwrap().blocks() * 512;
    let discard = serde_json::json!({"cache_type": "Writeback", "discard": true});
    let ended = guest
        .drive("data", &image, discard)
        .script(
            "d=/dev/disk/by-id/virtio-data; echo size=$(cat /sys/block/vda/size)
             dd if=/dev/urandom of=$d bs=1M count=8 seek=10000 conv=fsync 2>/dev/null
             blkdiscard -o $((10000 << 20)) -l $((4 << 20)) $d && echo discarded=4; exit 3",
        )
        .run()
        .expect(3);
    assert_eq!(ended.value("size"), (20_u64 << 21).to_string());
    assert_eq!(ended.value("discarded"), "4");
    assert_eq!(used(&image), 4 << 20);
}
