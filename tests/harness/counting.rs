//! A Linux guest that counts on its console and on its disk and reads back what it wrote. At its end it reports whether its
//! vCPUs stalled and whether its network works. Port 5000 of its vsock echoes. Whatever happens to it meanwhile, no number
//! may be lost or repeated.
//!
//! It powers off instead of using the exit port: after a restore KVM reports the guest's task-state segment as busy, as
//! processors do, and the emulation of software hosts then denies user space every port.

use super::{Ended, Guest, network};
use std::path::Path;

/// A guest that counts to `last`, with the kernel `flavour` and the disk `data` at `image`, or one of its own.
pub fn guest(flavour: &str, last: u32, image: Option<&Path>) -> Guest {
    let guest = Guest::new(flavour, "vmlinuz").root(flavour);
    let written = serde_json::json!({"cache_type": "Writeback"});
    let guest = match image {
        Some(image) => guest.drive("data", image, written),
        None => guest.scratch("data", 1 << 20),
    };
    guest
        .entropy()
        .args(&network::guest_address(0))
        .interface("tap0")
        .api()
        .script(&format!(
            "modprobe -a virtio_balloon vmw_vsock_virtio_transport
             bantam-vsock echo 5000 2>/dev/null &
             disk=/dev/disk/by-id/virtio-data
             i=0; while [ $i -lt {last} ]; do
               i=$((i + 1)); echo \"count $i\"
               echo $i | dd of=$disk bs=512 seek=$((i % 100)) conv=sync,fsync 2>/dev/null
               [ $(dd if=$disk bs=512 skip=$((i % 100)) count=1 iflag=direct 2>/dev/null | head -n 1) = $i ] || echo lost $i
             done
             echo random=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n')
             dmesg | grep -c -i 'soft lockup\\|stall' | sed 's/^/lockups=/'
             ping -c 1 -W 20 10.99.0.1 >/dev/null && echo network=up
             poweroff -f; sleep 60"
        ))
}

/// Returns the numbers on the console.
pub fn numbers(console: &str) -> Vec<u32> {
    let counts = console
        .lines()
        .filter_map(|line| line.strip_prefix("count "));
    counts.map(|n| n.trim_end().parse().unwrap()).collect()
}

/// Checks the console of a guest that counted from `first` to `last`.
pub fn check(console: &str, first: u32, last: u32) {
    let expected: Vec<_> = (first..=last).collect();
    assert_eq!(numbers(console), expected, "{console}");
    assert!(!console.contains("lost "), "{console}");
    for sound in ["lockups=0", "network=up"] {
        assert!(console.contains(sound), "{console}");
    }
}

/// Like [`check`], for a guest that was never restored or forked.
pub fn check_ended(ended: &Ended, last: u32) {
    check(&ended.console, 1, last);
}
