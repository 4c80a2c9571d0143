//! A hundred guests, started at once, killed and cleaned up at once: they share nothing, and leave nothing.

use crate::harness::{bantam, sh};
use crate::process::{Orphan, controller, members};
use crate::world::{World, expect, jailer, links, tree};
use serde_json::json;
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

/// Each has 32 MiB, and touches less than one.
const GUESTS: u32 = 100;

fn id(guest: u32) -> String {
    format!("many-{guest}")
}

fn name(guest: u32) -> String {
    format!("img{guest}")
}

/// Runs all commands at once, each to its end.
fn at_once(commands: impl Iterator<Item = Command>) -> Vec<Output> {
    let spawned: Vec<Child> = commands
        .map(|mut command| {
            // A monitor would keep a pipe open.
            command.stdin(Stdio::null()).stdout(Stdio::null());
            command.stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let ends = spawned.into_iter().map(|child| child.wait_with_output());
    ends.collect::<Result<_, _>>().unwrap()
}

/// Fails if two of `all` are equal.
fn distinct<T: std::hash::Hash + Eq + std::fmt::Debug>(all: impl Iterator<Item = T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    for one in all {
        assert!(!seen.contains(&one), "{one:?} is shared");
        seen.insert(one);
    }
    assert_eq!(seen.len(), usize::try_from(GUESTS).unwrap());
    seen
}

#[test]
fn a_hundred_at_once_share_nothing_and_leave_nothing() {
    let world = World::new();
    world.config("up", &json!({}));
    let (version, file, hierarchy) = controller();
    let parent = format!("bantam-test-many-{}", std::process::id());
    let configured = |guest: u32| {
        world.config(
            "up",
            &json!({
                "drives": [world.drive("d", &name(guest), &json!({"size_mib": 8}))],
                "network-interfaces": [{"iface_id": "eth0", "host_dev_name": format!("tap{guest}"),
                    "bridge": "br0", "host": {"isolated": true, "bridge_addresses": ["10.99.0.1/24"]}}],
            }),
        );
        let to = world.path(&format!("vm{guest}.json"));
        fs::rename(world.path("vm.json"), &to).unwrap();
        to
    };
    let configs: Vec<_> = (0..GUESTS).map(configured).collect();
    // On the jails' file system, so that all link to one file: a hundred copies would fill a host in memory.
    let monitor = world.path("bantam");
    fs::copy(bantam(), &monitor).unwrap();
    let before = world.state();
    let start = |guest: u32| {
        let mut command = Command::new(jailer());
        command.args(["--id", &id(guest), "--exec-file"]);
        command.arg(&monitor);
        command.args(["--uid", "auto", "--uid-range", "64400-64599"]);
        command.arg("--chroot-base-dir").arg(world.path("base"));
        command.arg("--config-file").arg(&configs[guest as usize]);
        command.args([
            "--cgroup",
            &format!("{file}=99"),
            "--cgroup-version",
            version,
        ]);
        command.args(["--parent-cgroup", &parent, "--daemonize", "--", "--no-api"]);
        command
    };
    for ended in at_once((0..GUESTS).map(start)) {
        assert_eq!(expect(&ended, 0), "");
    }
    let guests: Vec<_> = (0..GUESTS)
        .map(|guest| Orphan::of(&world, &id(guest)))
        .collect();
    let users = distinct(guests.iter().map(|guest| guest.status("Uid")));
    assert!(users.iter().all(|user| user.starts_with("64")), "{users:?}");
    let roots = distinct(guests.iter().map(|guest| {
        let m = fs::metadata(format!("/proc/{}/root", guest.0)).unwrap();
        (m.dev(), m.ino())
    }));
    let links = links();
    for (number, guest) in (0..GUESTS).zip(&guests) {
        let root = fs::metadata(world.root(&id(number))).unwrap();
        let image = fs::metadata(world.path(&name(number))).unwrap();
        let uid = guest.status("Uid");
        let uid = uid.split('\t').next().unwrap();
        assert!(roots.contains(&(root.dev(), root.ino())), "{number}");
        for owned in [&root, &image] {
            assert_eq!(owned.uid().to_string(), uid, "{number}");
        }
        let tap = format!("tap{number} up=true bridge=br0");
        assert!(links.contains(&tap), "{tap}:\n{links:?}");
        let group = hierarchy.join(&parent).join(id(number));
        assert_eq!(members(&group), [guest.0.to_string()]);
    }
    // They are killed, and cleaned up while they end.
    drop(guests);
    let clean = |guest: u32| {
        let mut command = Command::new(jailer());
        command.args(["clean", "--id", &id(guest), "--chroot-base-dir"]);
        command.arg(world.path("base"));
        command
    };
    let mut left: Vec<u32> = (0..GUESTS).collect();
    for _ in 0..500 {
        let ends = at_once(left.iter().map(|guest| clean(*guest)));
        left = left
            .into_iter()
            .zip(ends)
            .filter(|(guest, ended)| {
                let said = String::from_utf8_lossy(&ended.stderr);
                // It has not ended yet.
                let runs = said.contains(&format!("clean up after {}: it runs", id(*guest)))
                    || said.contains(&format!("second guest called {} while one", id(*guest)));
                assert!(runs || ended.status.success() && said.is_empty(), "{said}");
                runs
            })
            .map(|(guest, _)| guest)
            .collect();
        if left.is_empty() {
            break;
        }
    }
    assert!(left.is_empty(), "{left:?}");
    fs::remove_dir(hierarchy.join(&parent)).unwrap();
    fs::remove_dir(world.path("base/bantam")).unwrap();
    // Images of guests stay.
    for guest in 0..GUESTS {
        fs::remove_file(world.path(&name(guest))).unwrap();
    }
    assert_eq!(world.state(), before);
    assert_eq!(tree(Path::new("/run/bantam/jails")), Vec::<String>::new());
    assert_eq!(sh("ip -o link show | grep -c tap || true").trim(), "0");
}
