//! A network for one test: a namespace with `br0` and taps, which ends with the test's thread.

use super::lifecycle::After;
use super::sh;
use nix::sched::{CloneFlags, unshare};

/// Address of the bridge. Guest `n` has 10.99.0.(n + 2).
pub const HOST: &str = "10.99.0.1";

/// Moves this thread and its children to a network namespace with `br0` and `taps` taps, from tap0. If guests are forked,
/// each tap has another beside it.
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

/// Returns the tap that a guest's child uses, and vice versa.
pub fn other(tap: &str) -> String {
    match tap.strip_suffix("-copy") {
        Some(first) => first.into(),
        None => format!("{tap}-copy"),
    }
}

/// Returns the kernel parameter that configures the interface of guest `n`.
pub fn guest_address(n: u32) -> String {
    format!("bantam.ip={}/24", guest_ip(n))
}

/// Returns the address of guest `n`.
pub fn guest_ip(n: u32) -> String {
    format!("10.99.0.{}", n + 2)
}
