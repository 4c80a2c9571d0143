//! The jailer with the real monitor: the jail's contents, the dropped privileges, and the absence of leftovers after a
//! failed start. Run as root, on any `/dev/kvm`, also an emulated one.
//!
//! Each test has a network, mounts and a file system of its own, which end with its thread.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

#[path = "jailer/escape.rs"]
mod escape;
#[path = "jailer/fork.rs"]
mod fork;
#[path = "jailer/guests.rs"]
mod guests;
#[path = "harness/mod.rs"]
mod harness;
#[path = "jailer/image.rs"]
mod image;
#[path = "jailer/many.rs"]
mod many;
#[path = "jailer/network.rs"]
mod network;
#[path = "jailer/process.rs"]
mod process;
#[path = "jailer/races.rs"]
mod races;
#[path = "jailer/snapshot.rs"]
mod snapshot;
#[path = "jailer/world.rs"]
mod world;

use harness::{bantam, sh};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use world::{
    GID, MIB, PATIENCE, Running, UID, World, contains, expect, jailer, links, mounts, output, tree,
};

fn tap_on_br0() -> Value {
    json!([{"iface_id": "eth0", "host_dev_name": "tap0", "bridge": "br0", "mtu": 1400}])
}

#[test]
fn a_guest_runs_in_its_jail_without_any_privilege() {
    let world = World::new();
    fs::write(world.path("initrd"), "initrd").unwrap();
    fs::write(world.path("ro.img"), vec![1; 512]).unwrap();
    let boot = json!({
        "boot-source": {"kernel_image_path": world.path("up"), "initrd_path": world.path("initrd")},
        "drives": [world.drive("root", "root.img", &json!({"size_mib": 20480})),
                   world.drive("fixed", "ro.img", &json!({"is_read_only": true}))],
        "network-interfaces": tap_on_br0(), "entropy": {},
    });
    world.config("up", &boot);
    let guest = world.start("g1");
    let pid = guest.0.id();

    let status = fs::read_to_string(guest.proc("status")).unwrap();
    let none = "0000000000000000";
    for (key, value) in [
        ("Name", "bantam".to_owned()),
        ("Uid", [UID; 4].map(|id| id.to_string()).join("\t")),
        ("Gid", [GID; 4].map(|id| id.to_string()).join("\t")),
        ("Groups", String::new()),
        ("NoNewPrivs", "1".into()),
        ("CapInh", none.into()),
        ("CapPrm", none.into()),
        ("CapEff", none.into()),
        ("CapBnd", none.into()),
        ("CapAmb", none.into()),
    ] {
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        assert_eq!(found.unwrap().trim(), value, "{key}");
    }
    // The monitor blocks signals for a moment when it starts threads.
    let started = Instant::now();
    while !fs::read_to_string(guest.proc("status"))
        .unwrap()
        .contains(&format!("SigBlk:\t{none}"))
    {
        assert!(started.elapsed() < PATIENCE, "signals are blocked");
    }
    assert_eq!(fs::read(guest.proc("environ")).unwrap(), b"");
    let words = fs::read_to_string(guest.proc("cmdline")).unwrap();
    let words: Vec<_> = words.split_terminator('\0').collect();
    assert_eq!(words[..4], ["/bantam", "--id", "g1", "--start-time-us"]);
    assert_eq!(words[5], "--start-time-cpu-us");
    assert_eq!(words[7], "--parent-cpu-time-us");
    assert_eq!(words[9..], ["--config-file", "/vm.json", "--no-api"]);
    assert!(words[4].parse::<u64>().unwrap() > 0);

    // Only the jail and the guest's files are mounted, and only in this process's mount namespace.
    let seen = mounts(guest.proc("mountinfo"));
    let points: Vec<_> = seen.iter().map(|m| m.split(' ').next().unwrap()).collect();
    assert_eq!(
        points,
        ["/", "/kernel", "/initrd", "/drives/root", "/drives/fixed"]
    );
    for (mount, access) in seen.iter().zip(["rw", "ro", "ro", "rw", "ro"]) {
        contains(mount, &[&format!(" {access},")]);
    }
    for mount in &seen[1..] {
        contains(mount, &["nosuid", "nodev", "noexec"]);
    }
    let base = world.path("base");
    let here = mounts("/proc/thread-self/mountinfo").join("\n");
    assert!(!here.contains(base.to_str().unwrap()), "{here}");

    // No descriptor is a directory, through which a process could leave the jail.
    let mut taps = 0;
    for fd in fs::read_dir(guest.proc("fd")).unwrap() {
        let fd = fd.unwrap().path();
        assert!(!fs::metadata(&fd).is_ok_and(|m| m.is_dir()), "{fd:?}");
        taps += i32::from(fs::read_link(&fd).unwrap().ends_with("net/tun"));
    }
    assert!(taps > 0, "no tap");
    let limits = fs::read_to_string(guest.proc("limits")).unwrap();
    let files = limits.lines().find(|l| l.starts_with("Max open files"));
    assert_eq!(files.unwrap().split_whitespace().nth(4), Some("2048"));

    let root = world.root("g1");
    let owner = |path: PathBuf| {
        let m = fs::symlink_metadata(path).unwrap();
        (m.uid(), m.gid(), m.mode() & 0o7777)
    };
    assert_eq!(owner(root.clone()), (UID, GID, 0o700));
    assert_eq!(owner(root.join("run")), (UID, GID, 0o700));
    assert_eq!(owner(root.join("dev/kvm")), (UID, GID, 0o600));
    assert_eq!(owner(root.join("vm.json")), (UID, GID, 0o400));
    assert_eq!(owner(root.join("bantam.pid")), (0, 0, 0o644));
    let written = fs::read_to_string(root.join("bantam.pid")).unwrap();
    assert_eq!(written, pid.to_string());
    assert_eq!(owner(world.path("root.img")), (UID, GID, 0o600));
    let image = fs::metadata(world.path("root.img")).unwrap();
    assert_eq!(image.len(), 20480 * MIB);
    assert_eq!(image.blocks(), 0);

    contains(
        &links().join("\n"),
        &["br0 up=true", "tap0 up=true bridge=br0"],
    );
    contains(&sh("ip link show tap0"), &["mtu 1400"]);
    guest.terminate();
    let links = links().join("\n");
    assert!(!links.contains("tap0"), "{links}");
    contains(&links, &["br0 up=true"]);
}

#[test]
fn the_jailer_exits_with_the_guest_s_status() {
    let world = World::new();
    world.config("exit", &json!({}));
    expect(&world.run("g1"), 42);
    // Leftovers of that run do not matter.
    expect(&world.run("g1"), 42);
}

#[test]
fn an_id_has_one_guest_and_a_bridge_may_have_many() {
    let world = World::new();
    world.config("up", &json!({"network-interfaces": tap_on_br0()}));
    let first = world.start("g1");
    let before = world.state();
    let text = expect(&world.run("g1"), 152);
    contains(
        &text,
        &[
            "--id",
            "choose another --id",
            "there is a device tap0 already",
        ],
    );
    assert_eq!(world.state(), before);

    let mut tap = tap_on_br0();
    tap[0]["host_dev_name"] = json!("tap1");
    world.config("up", &json!({"network-interfaces": tap}));
    let second = world.start("g2");
    let address = sh("ip -o link show br0");
    contains(
        &links().join("\n"),
        &["tap0 up=true bridge=br0", "tap1 up=true bridge=br0"],
    );
    first.terminate();
    contains(&links().join("\n"), &["tap1 up=true bridge=br0"]);
    // The bridge's MAC address does not change with its ports.
    let mac = |line: &str| line.split("link/ether ").nth(1).unwrap()[..17].to_owned();
    assert_eq!(mac(&sh("ip -o link show br0")), mac(&address));
    second.terminate();
}

#[test]
fn a_new_image_is_a_copy_of_its_template_and_an_existing_one_is_kept() {
    let world = World::new();
    let template = File::create(world.path("template")).unwrap();
    template.set_len(40 * MIB + 7).unwrap();
    template.write_all_at(b"begin", 0).unwrap();
    template.write_all_at(b"end", 40 * MIB + 4).unwrap();
    let keys = json!({"size_mib": 64, "template": world.path("template")});
    world.config(
        "exit",
        &json!({"drives": [world.drive("d", "d.img", &keys)]}),
    );
    expect(&world.run("g1"), 42);
    let image = File::options()
        .read(true)
        .write(true)
        .open(world.path("d.img"))
        .unwrap();
    assert_eq!(image.metadata().unwrap().len(), 64 * MIB);
    assert!(image.metadata().unwrap().blocks() * 512 < MIB);
    let mut end = [0; 4];
    image.read_exact_at(&mut end, 40 * MIB + 4).unwrap();
    assert_eq!(&end, b"end\0");

    image.write_all_at(b"the guest's", 0).unwrap();
    expect(&world.run("g1"), 42);
    let mut begin = [0; 11];
    image.read_exact_at(&mut begin, 0).unwrap();
    assert_eq!(&begin, b"the guest's");
}

#[test]
fn all_problems_are_reported_at_once_and_nothing_is_made() {
    let world = World::new();
    sh("ip link add dummy0 type bridge; ip link add plain type veth peer name other");
    for (name, mode) in [("foreign.img", 0o600), ("readable.img", 0o644)] {
        fs::write(world.path(name), [0; 512]).unwrap();
        fs::set_permissions(world.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(world.path("exit"), fs::Permissions::from_mode(0o600)).unwrap();
    let more = json!({
        "boot-source": {"kernel_image_path": world.path("exit"), "initrd_path": world.path("nowhere")},
        "drives": [world.drive("a", "missing.img", &json!({})),
                   world.drive("b", "foreign.img", &json!({})),
                   world.drive("c", "readable.img", &json!({})),
                   world.drive("d", "new.img", &json!({"template": "/nonexistent"})),
                   world.drive("e", "nodir/new.img", &json!({"size_mib": 1})),
                   world.drive("f", "base", &json!({})),
                   world.drive("g", "good.img", &json!({"size_mib": 1}))],
        "network-interfaces": [
            {"iface_id": "n0", "host_dev_name": "tap0"},
            {"iface_id": "n1", "host_dev_name": "plain", "bridge": "br0"},
            {"iface_id": "n2", "host_dev_name": "tap2", "bridge": "other"},
            {"iface_id": "n3", "host_dev_name": "dummy0"}],
    });
    world.config("exit", &more);
    let before = world.state();
    let mut command = world.jailer_of("g1", Path::new("/nonexistent/bantam"));
    command.arg("--config-file").arg(world.path("vm.json"));
    command.args(["--netns", "/proc/thread-self/ns/net"]);
    let text = expect(&output(&mut command), 152);
    let owner = format!("{UID}:{GID}");
    contains(
        &text,
        &[
            "problems:\n",
            "--exec-file: cannot open /nonexistent/bantam",
            &format!("must be able to read {}", world.path("exit").display()),
            "vm.json: boot-source.kernel_image_path: ",
            "boot-source.initrd_path: cannot open",
            "drives[0].path_on_host",
            "add `size_mib`",
            "drives[1].path_on_host",
            &format!("chown {owner}"),
            "drives[2].path_on_host",
            "or set is_read_only",
            "drives[3].template: cannot open /nonexistent",
            "drives[4].path_on_host",
            "mkdir -p",
            "drives[5].path_on_host",
            "neither a file nor a block device",
            "network-interfaces[0].host_dev_name: there is no tap tap0",
            "network-interfaces[1].host_dev_name: there is a device plain already",
            "network-interfaces[2].bridge: other is a device of kind `veth`",
            "network-interfaces[3].host_dev_name: dummy0 is a device of kind `bridge`",
        ],
    );
    assert!(!text.contains("drives[6]"), "{text}");
    assert_eq!(world.state(), before);

    let mut command = world.jailer("g1");
    command.arg("--config-file").arg(world.path("vm.json"));
    command.args(["--netns", "/nonexistent/net"]);
    contains(
        &expect(&output(&mut command), 152),
        &[
            "--netns: cannot enter /nonexistent/net",
            "ip netns add",
            "drives[0]",
        ],
    );
    assert_eq!(world.state(), before);

    fs::write(world.path("vm.json"), "{").unwrap();
    let before = world.state();
    contains(
        &expect(&world.run("g1"), 152),
        &["--config-file: ", "vm.json", "ends early"],
    );
    assert_eq!(world.state(), before);
}

#[test]
fn bad_arguments_end_with_153_and_make_nothing() {
    let world = World::new();
    world.config("exit", &json!({}));
    let before = world.state();
    let text = expect(&output(world.jailer("g1").args(["--cgroup", "x"])), 153);
    contains(&text, &["--cgroup x: write"]);
    expect(&output(Command::new(jailer()).args(["--id", "g1"])), 153);
    assert_eq!(world.state(), before);
}

#[test]
fn a_monitor_that_cannot_be_executed_leaves_nothing() {
    let world = World::new();
    // A header without a program: only the kernel notices.
    let mut program = fs::read(bantam()).unwrap();
    program.truncate(4096);
    program[56..58].fill(0);
    let monitor = world.path("monitor");
    fs::write(&monitor, program).unwrap();
    fs::set_permissions(&monitor, fs::Permissions::from_mode(0o755)).unwrap();
    let more = json!({
        "drives": [world.drive("d", "d.img", &json!({"size_mib": 1}))],
        "network-interfaces": tap_on_br0(),
    });
    world.config("exit", &more);
    let before = world.state();
    let mut command = world.jailer_of("g1", &monitor);
    command.arg("--config-file").arg(world.path("vm.json"));
    let text = expect(&output(&mut command), 1);
    contains(&text, &["execute /monitor"]);
    assert!(!text.contains("warning"), "{text}");
    assert_eq!(world.state(), before);
}

#[test]
fn a_network_that_cannot_be_made_leaves_nothing() {
    let world = World::new();
    // More than a tap accepts.
    let mut network = tap_on_br0();
    network[0]["mtu"] = json!(65535);
    let drive = world.drive("d", "d.img", &json!({"size_mib": 1}));
    world.config(
        "exit",
        &json!({"drives": [drive], "network-interfaces": network}),
    );
    let before = world.state();
    let text = expect(&world.run("g1"), 1);
    contains(&text, &["tap0", "65535", "network-interfaces[0].mtu"]);
    assert_eq!(world.state(), before);

    // An existing bridge stays.
    sh("ip link add br0 type bridge; ip link set br0 up");
    let before = world.state();
    expect(&world.run("g1"), 1);
    assert_eq!(world.state(), before);
}

#[test]
fn a_full_file_system_leaves_nothing() {
    let world = World::new();
    let small = world.path("small");
    sh(&format!(
        "mkdir {0}; mount -t tmpfs -o size=4m tmpfs {0}",
        small.display()
    ));
    fs::write(world.path("template"), vec![1; 9 << 20]).unwrap();
    let keys = json!({"template": world.path("template")});
    world.config(
        "exit",
        &json!({"drives": [world.drive("d", "small/d.img", &keys)]}),
    );
    let before = world.state();
    contains(
        &expect(&world.run("g1"), 152),
        &["needs 9 MiB and 4 MiB are free"],
    );
    assert_eq!(world.state(), before);

    // The jail itself does not fit on the file system.
    world.config("exit", &json!({}));
    let before = world.state();
    let mut command = Command::new(jailer());
    command.args([
        "--id",
        "g1",
        "--uid",
        "1",
        "--gid",
        "1",
        "--exec-file",
        bantam(),
    ]);
    command.arg("--chroot-base-dir").arg(&small);
    let text = expect(&output(&mut command), 1);
    contains(&text, &["small/bantam/g1/root/bantam"]);
    assert_eq!(world.state(), before);
}

#[test]
fn a_signal_during_a_start_leaves_nothing() {
    let world = World::new();
    let drive = world.drive("d", "d.img", &json!({"size_mib": 1}));
    world.config(
        "exit",
        &json!({"drives": [drive], "network-interfaces": tap_on_br0()}),
    );
    let before = world.state();
    // The signal is pending and blocked when the jailer begins, so it cannot end the process by itself.
    let mut shell = Command::new("env");
    shell.args([
        "--block-signal=TERM",
        "sh",
        "-c",
        "kill -TERM $$; exec \"$@\"",
        "sh",
    ]);
    shell.arg(jailer()).args(world.jailer("g1").get_args());
    shell.arg("--config-file").arg(world.path("vm.json"));
    contains(&expect(&output(&mut shell), 1), &["stopped by SIGTERM"]);
    assert_eq!(world.state(), before);
}

#[test]
fn links_that_a_guest_left_in_its_jail_are_not_followed() {
    let world = World::new();
    let root = world.root("g1");
    fs::create_dir_all(root.join("drives")).unwrap();
    fs::create_dir(world.path("victims")).unwrap();
    let victim = |name: &str| {
        let path = world.path("victims").join(name);
        fs::write(&path, name).unwrap();
        path
    };
    for name in ["kernel", "vm.json", "bantam", "bantam.pid", "drives/d"] {
        symlink(victim(&name.replace('/', "-")), root.join(name)).unwrap();
    }
    let drive = world.drive("d", "d.img", &json!({"size_mib": 1}));
    world.config("exit", &json!({"drives": [drive]}));
    let before = tree(&world.path("victims"));
    expect(&world.run("g1"), 42);
    assert_eq!(tree(&world.path("victims")), before);

    fs::remove_dir_all(root.join("dev")).unwrap();
    symlink(world.path("victims"), root.join("dev")).unwrap();
    let text = expect(&world.run("g1"), 1);
    contains(&text, &["root/dev", "remove the file in its place"]);
    assert_eq!(tree(&world.path("victims")), before);
}

#[test]
fn a_host_s_mount_in_the_jail_is_not_changed() {
    let world = World::new();
    let dev = world.root("g1").join("dev");
    fs::create_dir_all(&dev).unwrap();
    sh(&format!("mount --bind /dev {}", dev.display()));
    world.config("exit", &json!({}));
    let before = tree(Path::new("/dev/net"));
    let text = expect(&world.run("g1"), 1);
    contains(&text, &["root/dev", "unmount it"]);
    assert_eq!(tree(Path::new("/dev/net")), before);
    assert!(Path::new("/dev/kvm").exists());
}

#[test]
fn clean_keeps_what_is_mounted_in_a_jail() {
    let world = World::new();
    let dev = world.root("g1").join("dev");
    fs::create_dir_all(&dev).unwrap();
    let own = world.path("own");
    sh(&format!(
        "mkdir -p {0}/net; mknod {0}/kvm c 1 3; mknod {0}/net/tun c 1 3; mount --bind {0} {1}",
        own.display(),
        dev.display()
    ));
    let before = tree(&own);
    let mut clean = Command::new(jailer());
    clean.args(["clean", "--id", "g1", "--chroot-base-dir"]);
    let text = expect(&output(clean.arg(world.path("base"))), 0);
    contains(
        &text,
        &["root/dev stays, because something is mounted there"],
    );
    assert_eq!(tree(&own), before);
}

#[test]
fn names_that_a_guest_made_are_printed_without_control_characters() {
    let world = World::new();
    let run = world.root("g1").join("run");
    fs::create_dir_all(&run).unwrap();
    for i in 0..5000 {
        fs::write(run.join(format!("\x1b[2J{i}")), "").unwrap();
    }
    let mut clean = Command::new(jailer());
    clean.args(["clean", "--id", "g1", "--chroot-base-dir"]);
    let text = expect(&output(clean.arg(world.path("base"))), 0);
    contains(&text, &["run stays, because it contains ?[2J", ", more"]);
    assert!(text.len() < 2000 && !text.contains('\x1b'), "{text}");
}

#[test]
fn a_jail_that_a_client_prepared_is_used() {
    // As orchestrators do it: the root is a mount with files in it, and the arguments name them.
    let world = World::new();
    let root = world.root("g1");
    fs::create_dir_all(&root).unwrap();
    sh(&format!("mount --bind {0} {0}", root.display()));
    fs::copy(world.path("exit"), root.join("vmlinux")).unwrap();
    let config = json!({"boot-source": {"kernel_image_path": "/vmlinux"}, "drives": []});
    fs::write(root.join("fc.json"), config.to_string()).unwrap();
    for file in ["vmlinux", "fc.json"] {
        fs::set_permissions(root.join(file), fs::Permissions::from_mode(0o644)).unwrap();
    }
    let mut command = world.jailer("g1");
    command.args(["--", "--no-api", "--config-file", "fc.json"]);
    expect(&output(&mut command), 42);
}

#[test]
fn a_tap_of_the_operator_is_passed_to_the_monitor() {
    let world = World::new();
    sh("ip tuntap add tap7 mode tap; ip link set tap7 up");
    let network = json!([{"iface_id": "eth0", "host_dev_name": "tap7"}]);
    world.config("up", &json!({"network-interfaces": network}));
    let guest = world.start("g1");
    let text = expect(&world.run("g2"), 152);
    contains(&text, &["another process uses the tap tap7"]);
    guest.terminate();
    contains(&links().join("\n"), &["tap7 up=true"]);
}

#[test]
fn an_image_of_a_running_guest_is_refused_before_anything_is_made() {
    let world = World::new();
    let drive = world.drive("d", "d.img", &json!({"size_mib": 1}));
    world.config("up", &json!({"drives": [drive]}));
    let guest = world.start("g1");
    let before = world.state();
    let text = expect(&world.run("g2"), 152);
    contains(
        &text,
        &["drives[0].path_on_host", "in use by another process"],
    );
    assert_eq!(world.state(), before);
    guest.terminate();
}

#[test]
fn the_jailer_sets_limits_and_clears_the_environment() {
    let world = World::new();
    world.config("up", &json!({}));
    let mut command = world.jailer("g1");
    command.args([
        "--resource-limit",
        "no-file=99",
        "--resource-limit",
        "fsize=1048576",
    ]);
    command.arg("--config-file").arg(world.path("vm.json"));
    command.args(["--", "--no-api"]).stdout(Stdio::piped());
    // No open file and no variable of the caller enters the jail.
    let secret = File::open("/etc/passwd").unwrap();
    let secret = nix::unistd::dup(&secret).unwrap();
    let mut guest = Running(command.env("SECRET", "1").spawn().unwrap());
    let mut line = [0; 3];
    guest
        .0
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    drop(secret);
    let limits = fs::read_to_string(guest.proc("limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
    };
    assert_eq!(limit("Max open files"), "99");
    assert_eq!(limit("Max file size"), "1048576");
    for fd in fs::read_dir(guest.proc("fd")).unwrap() {
        let to = fs::read_link(fd.unwrap().path()).unwrap();
        assert!(!to.ends_with("passwd"), "{}", to.display());
    }
    assert_eq!(fs::read(guest.proc("environ")).unwrap(), b"");
    guest.terminate();
}

#[test]
fn without_root_the_jailer_says_so() {
    let world = World::new();
    world.config("exit", &json!({}));
    let program = world.path("jailer");
    fs::copy(jailer(), &program).unwrap();
    let mut command = Command::new(&program);
    command.args(world.jailer("g1").get_args());
    command.arg("--config-file").arg(world.path("vm.json"));
    let text = expect(&output(command.uid(UID).gid(GID)), 152);
    contains(&text, &["must be started by root"]);
}
