//! The network: guests on `br0` reach one another and the host, TCP data arrives intact, a tap may be removed.

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

use harness::lifecycle::{After, ELSEWHERE};
use harness::{Guest, announce, needs_kvm, network, rounds, sh};
use std::io::{Read, Write};
use std::net::TcpListener;

#[test]
fn four_guests_reach_each_other_and_the_host() {
    needs_kvm();
    announce("network four guests");
    network::enter(4);
    // Each guest answers pings until the others are done. The last address is the host's.
    let script = "
for peer in 10.99.0.2 10.99.0.3 10.99.0.4 10.99.0.5 10.99.0.1; do
    tries=0
    until ping -c 1 -W 5 $peer >/dev/null; do
        tries=$((tries + 1)); [ $tries -lt 60 ] || exit 9
    done
    echo reached=$peer
done
echo all=reached
sleep 1000";
    let start = |n: u32| {
        Guest::cloud()
            .mem_mib(128)
            .args(&network::guest_address(n))
            .interface(&format!("tap{n}"))
            .script(script)
            .start()
    };
    let mut guests: Vec<_> = (0..4).map(start).collect();
    for guest in &mut guests {
        guest.wait_for("all=reached");
    }
    for guest in guests {
        drop(guest.kill());
    }
}

/// A stream that never repeats within a test.
struct Pattern(u64);

impl Pattern {
    fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let bytes = (self.0 ^ self.0 >> 29).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}

#[test]
fn tcp_arrives_intact_both_ways() {
    needs_kvm();
    announce("network tcp");
    network::enter(1);
    // Actions on the guest take time, so less data takes as long.
    let few = if After::current().is_some() { 6 } else { 16 };
    let mib = u64::from(rounds(few, 1024));
    let (to, out, back) = (listen(), listen(), listen());
    let script = format!(
        "nc 10.99.0.1 {} | sha256sum | sed 's/ .*//; s/^/received=/'
         (nc 10.99.0.1 {} </dev/null) | nc 10.99.0.1 {}
         exit 3",
        port(&to),
        port(&out),
        port(&back),
    );
    let mut running = Guest::cloud()
        .args(&network::guest_address(0))
        .interface("tap0")
        .script(&script)
        .start();
    let sent = running.meanwhile(|| {
        let sent = send(&to.accept().unwrap().0, mib);
        // The guest sends what it receives, so that it need not store it.
        let (outward, _) = out.accept().unwrap();
        let (mut inward, _) = back.accept().unwrap();
        let sender = std::thread::spawn(move || send(&outward, mib));
        let (mut got, mut buffer) = (Pattern(1), vec![0; 1 << 16]);
        let mut expected = vec![0; 1 << 16];
        let mut total = 0;
        while total < mib << 20 {
            inward.read_exact(&mut buffer).unwrap();
            got.fill(&mut expected);
            assert!(buffer == expected, "the stream differs at {total}");
            total += buffer.len() as u64;
        }
        sender.join().unwrap();
        sent
    });
    running.more_time();
    let ended = running.wait().expect(3);
    assert_eq!(ended.value("received"), sent);
}

fn listen() -> TcpListener {
    TcpListener::bind((network::HOST, 0)).unwrap()
}

fn port(listener: &TcpListener) -> u16 {
    listener.local_addr().unwrap().port()
}

/// Sends `mib` MiB of the pattern. Returns their SHA-256.
fn send(mut stream: &std::net::TcpStream, mib: u64) -> String {
    let mut sum = std::process::Command::new("sha256sum")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut digest = sum.stdin.take().unwrap();
    let (mut pattern, mut buffer) = (Pattern(1), vec![0; 1 << 16]);
    for _ in 0..mib << 4 {
        pattern.fill(&mut buffer);
        stream.write_all(&buffer).unwrap();
        digest.write_all(&buffer).unwrap();
    }
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    drop(digest);
    let output = sum.wait_with_output().unwrap();
    String::from_utf8_lossy(&output.stdout)[..64].to_owned()
}

#[test]
fn offloads_and_mergeable_buffers_are_negotiated() {
    needs_kvm();
    announce("network offload");
    network::enter(1);
    // Bits of the virtio feature list: CSUM 0, GUEST_CSUM 1, GUEST_TSO4 7, HOST_TSO4 11, MRG_RXBUF 15.
    let ended = Guest::cloud()
        .interface("tap0")
        .script("echo features=$(cat /sys/class/net/eth0/device/features); exit 3")
        .run()
        .expect(3);
    let features = ended.value("features");
    for bit in [0, 1, 7, 8, 11, 12, 15, 32] {
        assert_eq!(features.as_bytes()[bit], b'1', "bit {bit} of {features}");
    }
}

#[test]
fn a_removed_tap_does_not_end_the_guest() {
    needs_kvm();
    announce("network tap gone");
    network::enter(1);
    let mut running = Guest::cloud()
        .only_at_the_start(
            &ELSEWHERE,
            "the tap with which the guest would continue is removed later",
        )
        .args(&network::guest_address(0))
        .interface("tap0")
        .script(
            "ping -c 1 -W 20 10.99.0.1 >/dev/null && echo network=up
             until ! ping -c 1 -W 1 10.99.0.1 >/dev/null; do :; done
             echo network=gone; sleep 2; echo alive=yes; exit 3",
        )
        .start();
    running.wait_for("network=up");
    sh(&format!("ip link delete {}", running.tap("eth0")));
    let ended = running.wait().expect(3);
    assert_eq!(ended.value("alive"), "yes");
}
