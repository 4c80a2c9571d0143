//! A network of a test's own: a namespace with `br0` and taps on it, gone with the test's thread.

use super::lifecycle::After;
use super::sh;
use nix::sched::{CloneFlags, unshare};

/// The bridge's address; guest `n` is 10.99.0.(n + 2).
pub const HOST: &str = "10.99.0.1";

/// Moves this thread, and what it starts, to a network namespace with `br0` and `taps` taps, tap0 and up; where guests are
/// forked, each with another beside it.
pub fn enter(taps: u32) {
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace: run as root");
    sh("ip link set lo up; ip link add br0 type bridge; \
        ip address add 10.99.0.1/24 dev br0; ip link set br0 up");
    for n in 0..taps {
        add(&format!("tap{n}"));
        if After::current() == Some(After::Fork) {
            add(&other(&format!("tap{n}")));
        }
    }
}

fn add(tap: &str) {
    sh(&format!(
        "ip tuntap add {tap} mode tap; ip link set {tap} master br0 up"
    ));
}

/// The tap that a copy of a guest uses while the guest has `tap`, and the other way round.
pub fn other(tap: &str) -> String {
    match tap.strip_suffix("-copy") {
        Some(first) => first.into(),
        None => format!("{tap}-copy"),
    }
}

/// The key with which guest `n` configures its interface.
pub fn guest_address(n: u32) -> String {
    format!("bantam.ip={}/24", guest_ip(n))
}

/// Address of guest `n`.
pub fn guest_ip(n: u32) -> String {
    format!("10.99.0.{}", n + 2)
}
