//! The host's side of a guest's network: the bridge's addresses, NAT, guards, isolation, and their leftovers.
//!
//! The guest is halted. A port with the tap's name, made by hand, sends the packets that it would send.

use crate::harness::sh;
use crate::world::{World, contains, expect, jailer, links, output};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

fn interfaces(host: &Value) -> Value {
    json!({"network-interfaces": [{
        "iface_id": "eth0", "host_dev_name": "tap0", "bridge": "br0", "guest_mac": "06:00:0a:58:00:05",
        "host": host,
    }]})
}

fn all() -> Value {
    json!({
        "bridge_addresses": ["10.88.0.1/24", "fd00:88::1/64"], "nat": true, "isolated": true,
        "spoof_guard": true, "addresses": ["10.88.0.5/24", "fd00:88::5/64"],
    })
}

fn tables() -> String {
    sh("nft list tables")
}

#[test]
fn the_network_of_a_guest_is_made_and_removed_with_it() {
    let world = World::new();
    world.config("up", &interfaces(&all()));
    let guest = world.start("g1");
    let addresses = sh("ip -o address show dev br0");
    contains(&addresses, &["10.88.0.1/24", "fd00:88::1/64"]);
    let mut own = addresses
        .lines()
        .filter(|line| line.contains("88::1") || line.contains("88.0.1"));
    assert!(own.all(|line| !line.contains("tentative")), "{addresses}");
    contains(&sh("ip -d link show tap0"), &["isolated on"]);
    contains(&tables(), &["bridge bantam-g1", "inet bantam-nat-br0"]);
    for family in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
        let path = format!("/proc/sys/net/{family}");
        assert_eq!(fs::read_to_string(path).unwrap().trim(), "1", "{family}");
    }
    guest.terminate();
    expect(&world.clean("g1"), 0);
    assert_eq!(tables(), "");
    assert!(!links().join("\n").contains("br0"));
}

#[test]
fn a_bridge_stays_for_other_guests_or_if_it_existed_before() {
    let world = World::new();
    world.config("up", &interfaces(&json!({"isolated": true})));
    let first = world.start("g1");
    let mut second = interfaces(&json!({}));
    second["network-interfaces"][0]["host_dev_name"] = json!("tap1");
    world.config("up", &second);
    let second = world.start("g2");
    first.terminate();
    expect(&world.clean("g1"), 0);
    contains(
        &links().join("\n"),
        &["br0 up=true", "tap1 up=true bridge=br0"],
    );
    second.terminate();
    expect(&world.clean("g2"), 0);
    assert!(!links().join("\n").contains("br0"));

    sh("ip link add br0 type bridge");
    let guest = world.start("g2");
    guest.terminate();
    expect(&world.clean("g2"), 0);
    contains(&links().join("\n"), &["br0"]);
}

#[test]
fn clean_removes_all_that_a_killed_start_leaves() {
    let world = World::new();
    let mut keys = interfaces(&all());
    keys["drives"] = json!([world.drive("d", "d.img", &json!({"size_mib": 1}))]);
    world.config("exit", &keys);
    let before = world.state();
    let mut killed = 0;
    // Killed at each system call that changes something, in turn, until the process is the monitor.
    for call in [
        "mkdirat",
        "mkdir",
        "mknodat",
        "fchown",
        "fchownat",
        "fchmod",
        "linkat",
        "symlinkat",
        "unlinkat",
        "renameat2",
        "openat",
        "pwrite64",
        "write",
        "ftruncate",
        "fsync",
        "ioctl",
        "sendto",
        "mount",
        "umount2",
        "pivot_root",
        "flock",
        "setresuid",
        "capset",
        "execve",
    ] {
        for nth in 1.. {
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o"]).arg(world.path("log"));
            command.arg("-e").arg(format!("trace=execve,{call}"));
            command
                .arg("-e")
                .arg(format!("inject={call}:signal=KILL:when={nth}"));
            command.arg(jailer()).args(world.jailer("g1").get_args());
            command.arg("--config-file").arg(world.path("vm.json"));
            command.args(["--", "--no-api"]);
            output(&mut command);
            let text = expect(&world.clean("g1"), 0);
            assert_eq!(text, "", "{call} {nth}");
            let trace = fs::read_to_string(world.path("log")).unwrap();
            fs::remove_file(world.path("log")).unwrap();
            // The first execve is the jailer's own. The ends of its threads may come between a call and its return.
            let executed = trace
                .lines()
                .filter(|line| line.contains("execve") && line.ends_with(" = 0"));
            if executed.count() > 1 {
                break;
            }
            killed += 1;
            // Directories that all jails share stay, and so do former files.
            let _ = fs::remove_dir(world.path("base/bantam"));
            assert_eq!(world.state(), before, "{call} {nth}");
        }
        // The guest has used it.
        let _ = fs::remove_file(world.path("d.img"));
        let _ = fs::remove_dir(world.path("base/bantam"));
        assert_eq!(world.state(), before, "{call}");
    }
    assert!(killed > 60, "only {killed} were killed");
}

#[test]
fn the_next_start_uses_the_image_of_a_killed_one() {
    let world = World::new();
    let drive = world.drive("d", "d.img", &json!({"size_mib": 1}));
    world.config("exit", &json!({"drives": [drive]}));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-o", "/dev/null", "-e"]);
    command.arg("inject=pivot_root:signal=KILL");
    command.arg(jailer()).args(world.jailer("g1").get_args());
    command.arg("--config-file").arg(world.path("vm.json"));
    output(&mut command);
    let inode = || fs::metadata(world.path("d.img")).unwrap().ino();
    let before = inode();
    expect(&world.run("g1"), 42);
    assert_eq!(inode(), before);
    expect(&world.clean("g1"), 0);
    assert_eq!(inode(), before);
}

/// Sends packets from a port with the tap's name; another port of the bridge shows which of them pass.
#[test]
fn a_guarded_guest_cannot_send_from_other_addresses() {
    let world = World::new();
    let mut keys = all();
    keys["isolated"] = json!(false);
    world.config("up", &interfaces(&keys));
    let guest = world.start("g1");
    guest.terminate();
    // The rules stay until they are cleaned up. The tap is gone, so its name is free.
    sh(
        "ip link add tap0 type veth peer name card; ip link set tap0 master br0 up; \
        ip netns add guest-of-test; ip link set card netns guest-of-test",
    );
    let inside = |command: &str| sh(&format!("ip netns exec guest-of-test sh -c '{command}'"));
    inside(
        "ip link set card address 06:00:0a:58:00:05 up; ip link set lo up; \
            ip address add 10.88.0.5/24 dev card; ip address add fd00:88::5/64 dev card nodad",
    );
    let reaches = |to: &str, from: &str| {
        let command = format!("ping -n -c 1 -W 1 -I {from} {to} >/dev/null && echo yes || echo no");
        inside(&command).trim() == "yes"
    };
    let own_v4 = (0..5).any(|_| reaches("10.88.0.1", "10.88.0.5"));
    let own_v6 = (0..5).any(|_| reaches("fd00:88::1", "fd00:88::5"));
    inside("ip address add 10.88.0.66/24 dev card; ip address add fd00:88::66/64 dev card nodad");
    let other_v4 = reaches("10.88.0.1", "10.88.0.66");
    let other_v6 = reaches("fd00:88::1", "fd00:88::66");
    inside("ip link set card down; ip link set card address 06:00:0a:58:00:66 up");
    let other_mac = reaches("10.88.0.1", "10.88.0.5");
    sh("ip netns delete guest-of-test");
    assert_eq!(
        (own_v4, own_v6, other_v4, other_v6, other_mac),
        (true, true, false, false, false)
    );
}

#[test]
fn impossible_rules_are_reported_before_anything_is_made() {
    let world = World::new();
    let mut keys = interfaces(&json!({"nat": true, "spoof_guard": true}));
    keys["network-interfaces"][0]["bridge"] = json!("b\"r");
    keys["network-interfaces"][0]["guest_mac"] = Value::Null;
    world.config("up", &keys);
    let before = world.state();
    let text = expect(&world.run("g1"), 152);
    contains(
        &text,
        &[
            "host.nat: needs `bridge_addresses`",
            "host.spoof_guard: needs the key `guest_mac`",
        ],
    );
    assert_eq!(world.state(), before);
}
