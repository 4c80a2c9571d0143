//! Linux guests that are saved and restored with I/O in flight: disk, network, vsock and time.

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
use harness::saved::{edit, state};
use harness::vsock::dial;
use harness::{Guest, Running, announce, counting, image, needs_kvm, network, payload, rounds};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn pause(running: &Running) {
    running.api("PATCH", "/vm", json!({"state": "Paused"}));
}

/// Returns a guest that counts on two vCPUs.
fn counting(last: u32) -> Guest {
    counting::guest("cloud", last, None).vcpus(2)
}

/// Fails unless every number was printed once.
fn check(running: Running, last: u32) {
    counting::check_ended(&running.wait().expect(0), last);
}

#[test]
fn a_guest_continues_where_it_was_saved() {
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
}

/// Returns the TSC of each vCPU in `state`, and its ticks per millisecond.
fn counters(state: &mut Value) -> Vec<(&mut Value, u64)> {
    let vcpus = state["machine"]["vcpus"].as_array_mut().unwrap().iter_mut();
    let counters = vcpus.map(|vcpu| {
        let khz = vcpu["tsc_khz"].as_u64().unwrap();
        let mut msrs = vcpu["msrs"].as_array_mut().unwrap().iter_mut();
        (&mut msrs.find(|msr| msr[0] == 0x10).unwrap()[1], khz)
    });
    counters.collect()
}

#[test]
fn a_guest_saved_in_its_first_second_keeps_its_tsc() {
    needs_kvm();
    announce("the time-stamp counter");
    let dir = tempfile::tempdir().unwrap();
    let guest = Guest::bare(&payload::write(dir.path(), &payload::endless("up ")));
    let mut running = guest.vcpus(2).api().start();
    running.wait_for("up");
    pause(&running);
    running.save("s", "Full");
    // Changes the state as if it had been saved earlier.
    let at = Duration::from_millis(900);
    let path = running.dir().join("s.state");
    edit(&path, |state| {
        for (counter, khz) in counters(state) {
            *counter = json!(khz * 900);
        }
    });

    let asked = Instant::now();
    let running = running.restore("s", json!({}));
    let loaded = Instant::now();
    pause(&running);
    let least = at + loaded.elapsed();
    running.save("again", "Full");
    let most = at + asked.elapsed();
    for (counter, khz) in counters(&mut state(&running.dir().join("again.state"))) {
        let shown = Duration::from_micros(counter.as_u64().unwrap() * 1000 / khz);
        assert!(
            (least..most).contains(&shown),
            "{shown:?} is not in {least:?} to {most:?}"
        );
    }
    drop(running.kill());
}

/// Fails unless port 5000 of the guest echoes through the socket at `path`.
fn echoes(path: &Path) {
    let mut stream = dial(path, 5000, Duration::from_secs(60));
    stream.write_all(b"across\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert_eq!(line, "across\n");
}

#[test]
fn a_chain_of_diffs_restores_with_other_sockets() {
    needs_kvm();
    announce("diff chain, vsock");
    network::enter(1);
    let last = 50;
    let guest = counting::guest("cloud", last, None);
    let first = guest.dir().join("first.sock");
    let mut running = guest
        .section("vsock", json!({"guest_cid": 3, "uds_path": first}))
        .machine(json!({"track_dirty_pages": true}))
        .start();
    running.wait_for("count 4");
    running.wait_for("vsock=listening");
    echoes(&first);
    pause(&running);
    running.save("full", "Full");
    let size = |running: &Running, name: &str| {
        let file = running.dir().join(format!("{name}.memory"));
        fs::metadata(file).unwrap().blocks() * 512
    };
    let whole = size(&running, "full");
    for (round, name) in [(1, "one"), (2, "two"), (3, "three")] {
        running.api("PATCH", "/vm", json!({"state": "Resumed"}));
        running.wait_for(&format!("count {}", 4 + 3 * round));
        pause(&running);
        running.save(name, "Diff");
        assert!(size(&running, name) < whole / 2, "{name} of {whole}");
    }
    // The guest has another vsock address, too.
    let second = running.dir().join("second.sock");
    let vsock = json!({"uds_path": second, "guest_cid": 9});
    let mut running = running.restore("three", json!({"vsock_override": vsock}));
    // The driver must learn the address before it answers to it.
    running.wait_for("count 16");
    echoes(&second);
    running.more_time();
    check(running, last);
}

#[test]
fn disk_and_tcp_continue_with_io_in_flight() {
    needs_kvm();
    announce("fio with verify, TCP");
    network::enter(1);
    let listener = TcpListener::bind((network::HOST, 0)).unwrap();
    let mib = u64::from(rounds(6, 512));
    let port = listener.local_addr().unwrap().port();
    let loops = rounds(1, 40);
    let mut running = Guest::cloud()
        .root("cloud")
        .vcpus(2)
        .args(&network::guest_address(0))
        .interface("tap0")
        .scratch("data", 4 << 20)
        .drive("fio", &image("fio.ext4"), json!({"is_read_only": true}))
        .api()
        .script(&format!(
            "mount -o ro /dev/disk/by-id/virtio-fio /mnt
             /mnt/fio --name=verify --filename=/dev/disk/by-id/virtio-data --rw=randwrite --bs=4k --size=4m --direct=1 \\
                 --ioengine=io_uring --iodepth=8 --thread --verify=crc32c --verify_fatal=1 --loops={loops} \\
                 --output-format=terse --terse-version=3 >/tmp/fio &
             echo started=1
             nc 10.99.0.1 {port} | sha256sum | sed 's/ .*//; s/^/received=/'
             wait; echo errors=$(cut -d ';' -f 5 /tmp/fio); dmesg | grep -c 'I/O error' | sed 's/^/failed=/'
             poweroff -f; sleep 60"
        ))
        .start();
    running.wait_for("started=1");
    let (mut stream, _) = listener.accept().unwrap();
    let sent = Arc::new(AtomicU64::new(0));
    let so_far = sent.clone();
    let sender = std::thread::spawn(move || {
        let mut digest = Sha256::new();
        for part in 0..mib << 4 {
            let block: Vec<u8> = (0..1_u64 << 13)
                .flat_map(|word| {
                    (word ^ part << 13)
                        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                        .to_le_bytes()
                })
                .collect();
            stream.write_all(&block).unwrap();
            digest.update(&block);
            so_far.fetch_add(1, Ordering::Relaxed);
        }
        digest.finalize()
    });
    for part in 1..=2 {
        while sent.load(Ordering::Relaxed) < part * (mib << 4) / 3 {
            std::thread::sleep(Duration::from_millis(20));
        }
        pause(&running);
        running.save("s", "Full");
        running = running.restore("s", json!({}));
    }
    let digest = sender.join().unwrap();
    running.more_time();
    let ended = running.wait().expect(0);
    let expected: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ended.value("received"), expected);
    assert_eq!(ended.value("errors"), "0", "{}", ended.console);
    assert_eq!(ended.value("failed"), "0", "{}", ended.console);
}

#[test]
fn two_restores_have_different_random_numbers_and_the_right_time() {
    needs_kvm();
    announce("generation, randomness, clock");
    let mut running = Guest::new("generic", "vmlinuz")
        .root("generic")
        .api()
        .script(
            "ls /sys/bus/acpi/drivers/vmgenid/ | grep -c : | sed 's/^/vmgenid=/'
             grep -c ACPI:Ged /proc/interrupts | sed 's/^/ged=/'
             cat /sys/devices/system/clocksource/clocksource0/current_clocksource
             i=0; while [ $i -lt 60 ]; do i=$((i + 1))
               echo \"drawn $(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n') $(date +%s)\"; usleep 200000
             done
             dmesg | grep -c 'crng reseeded due to virtual machine fork' | sed 's/^/reseeded=/'
             dmesg | grep -c -i 'soft lockup\\|stall' | sed 's/^/lockups=/'
             poweroff -f; sleep 60",
        )
        .start();
    let drawn = |running: &Running| -> Vec<(String, u64)> {
        let console = running.console();
        let lines = console
            .lines()
            .filter_map(|line| line.strip_prefix("drawn "));
        let whole = lines.filter_map(|line| line.trim_end().split_once(' '));
        let whole = whole.filter(|(random, time)| random.len() == 32 && time.len() == 10);
        whole
            .map(|(random, time)| (random.into(), time.parse().unwrap()))
            .collect()
    };
    let now = || {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since.unwrap().as_secs()
    };
    running.wait_for("drawn ");
    pause(&running);
    running.save("s", "Full");
    let mut firsts = Vec::new();
    for _ in 0..2 {
        let before = drawn(&running).len();
        std::thread::sleep(Duration::from_secs(8));
        running = running.restore("s", json!({"clock_realtime": true}));
        while drawn(&running).len() < before + 4 {
            running.wait_for("drawn ");
            std::thread::sleep(Duration::from_millis(100));
        }
        let after = drawn(&running).split_off(before + 1);
        let (_, time) = after.last().unwrap();
        let (now, console) = (now(), running.console());
        assert!(
            now.abs_diff(*time) <= 5,
            "the guest's time is {time}, the host's {now}: {console}"
        );
        firsts.push(
            after
                .into_iter()
                .map(|(random, _)| random)
                .collect::<Vec<_>>(),
        );
    }
    for random in &firsts[0] {
        assert!(!firsts[1].contains(random), "the same twice: {firsts:?}");
    }
    let ended = running.wait().expect(0);
    assert_eq!(ended.value("vmgenid"), "1");
    assert_eq!(ended.value("ged"), "2");
    assert_eq!(ended.value("reseeded"), "1");
    assert_eq!(ended.value("lockups"), "0");
}

#[test]
fn a_handler_serves_the_memory_of_linux() {
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
