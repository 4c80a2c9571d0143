//! The monitor's process: its parent, session, control groups, namespaces and user.

use crate::harness::{bantam, sh};
use crate::world::{GID, PATIENCE, Running, UID, World, contains, expect, jailer, output};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// A monitor that is no child of the test, and ends with it.
pub struct Orphan(pub i32);

impl Orphan {
    pub fn of(world: &World, id: &str) -> Self {
        let text = fs::read_to_string(world.root(id).join("bantam.pid")).unwrap();
        Self(text.parse().unwrap())
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.0)).unwrap()
    }

    pub fn status(&self, key: &str) -> String {
        let status = self.file("status");
        let mut lines = status.lines();
        let found = lines.find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
        found.unwrap().to_owned()
    }

    fn link(&self, name: &str) -> PathBuf {
        fs::read_link(format!("/proc/{}/{name}", self.0)).unwrap()
    }

    fn end(self) {
        let pid = self.0;
        drop(self);
        let started = Instant::now();
        // A zombie without other threads holds nothing any more; another process waits for it.
        let alive = || {
            let threads = fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
            let status = fs::read_to_string(format!("/proc/{pid}/status"));
            threads > 1 || status.is_ok_and(|status| !status.contains("State:\tZ"))
        };
        while alive() {
            assert!(started.elapsed() < PATIENCE, "{pid} does not end");
            std::thread::yield_now();
        }
    }
}

impl Drop for Orphan {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0), Signal::SIGKILL);
    }
}

fn with_flags(world: &World, id: &str, flags: &[&str]) -> Command {
    let mut command = world.jailer(id);
    command
        .args(flags)
        .arg("--config-file")
        .arg(world.path("vm.json"));
    command.args(["--", "--no-api"]);
    command
}

/// Starts a guest by a jailer that exits; returns when it has.
fn start(world: &World, id: &str, flags: &[&str]) -> Orphan {
    let mut command = with_flags(world, id, flags);
    // A monitor that holds pipes open would keep the test waiting.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    assert!(command.status().unwrap().success());
    Orphan::of(world, id)
}

#[test]
fn a_daemon_has_no_terminal_and_the_jailer_exits() {
    let world = World::new();
    world.config("up", &json!({}));
    let guest = start(&world, "g1", &["--daemonize"]);
    assert_eq!(guest.status("Name"), "bantam");
    let stat = guest.file("stat");
    let words: Vec<_> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    let (session, terminal) = (words[3], words[4]);
    assert_ne!(session, std::process::id().to_string());
    // It is no session leader, so it cannot get a terminal.
    assert_ne!(session, guest.0.to_string());
    assert_eq!(terminal, "0");
    for stream in ["fd/0", "fd/1", "fd/2"] {
        assert!(guest.link(stream).ends_with("null"), "{stream}");
    }
    contains(
        &expect(
            &output(&mut with_flags(&world, "g1", &["--daemonize"])),
            152,
        ),
        &["choose another --id"],
    );
    contains(&expect(&world.clean("g1"), 1), &["it runs: end it first"]);
    guest.end();
    expect(&world.clean("g1"), 0);
    assert!(!world.path("base/bantam/g1").exists());
}

#[test]
fn the_monitor_gets_namespaces_of_its_own() {
    let world = World::new();
    world.config("up", &json!({}));
    for flags in [
        vec!["--new-pid-ns"],
        vec!["--new-pid-ns", "--daemonize"],
        vec!["--new-pid-ns", "--daemonize", "--new-user-ns"],
    ] {
        let guest = start(&world, "g1", &flags);
        assert_eq!(
            guest.status("NSpid").split('\t').nth(1),
            Some("1"),
            "{flags:?}"
        );
        assert_eq!(guest.status("CapEff"), "0000000000000000");
        assert_eq!(
            guest.status("Uid").split('\t').next(),
            Some(UID.to_string().as_str())
        );
        let map = guest.file("uid_map");
        let map: Vec<_> = map.split_whitespace().collect();
        if flags.contains(&"--new-user-ns") {
            assert_eq!(map, ["0", &UID.to_string(), "1"]);
            assert_eq!(guest.status("CapBnd"), "0000000000000000");
        } else {
            assert_eq!(map[0], map[1]);
        }
        guest.end();
    }
}

#[test]
fn root_of_a_user_namespace_is_unprivileged_outside_and_keeps_the_process_id() {
    let world = World::new();
    world.config("exit", &json!({}));
    let flags = ["--new-user-ns"];
    expect(&output(&mut with_flags(&world, "g1", &flags)), 42);

    world.config("up", &json!({}));
    let mut command = with_flags(&world, "g1", &flags);
    let guest = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    let started = Instant::now();
    let map = loop {
        let map = fs::read_to_string(guest.proc("gid_map")).unwrap();
        if map.contains(&GID.to_string()) && guest.proc("root/bantam").exists() {
            break map;
        }
        assert!(started.elapsed() < PATIENCE, "{map}");
    };
    assert_eq!(map.split_whitespace().next(), Some("0"));
    // The process that would have undone the start has ended, and was reaped.
    let children = format!("/proc/{0}/task/{0}/children", guest.0.id());
    let started = Instant::now();
    while !fs::read_to_string(&children).unwrap().is_empty() {
        assert!(started.elapsed() < PATIENCE, "the guard stays");
    }
}

#[test]
fn a_failed_exec_leaves_nothing_in_any_process() {
    let world = World::new();
    let mut program = fs::read(bantam()).unwrap();
    program.truncate(4096);
    program[56..58].fill(0);
    let monitor = world.path("monitor");
    fs::write(&monitor, program).unwrap();
    sh(&format!("chmod 755 {}", monitor.display()));
    world.config(
        "exit",
        &json!({
            "drives": [world.drive("d", "d.img", &json!({"size_mib": 1}))],
            "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0", "bridge": "br0"}],
        }),
    );
    let before = world.state();
    for flags in [
        vec!["--daemonize"],
        vec!["--new-pid-ns"],
        vec!["--new-user-ns"],
        vec!["--daemonize", "--new-pid-ns", "--new-user-ns"],
    ] {
        let mut command = world.jailer_of("g1", &monitor);
        command
            .args(&flags)
            .arg("--config-file")
            .arg(world.path("vm.json"));
        let text = expect(&output(&mut command), 1);
        contains(&text, &["execute /monitor"]);
        assert_eq!(world.state(), before, "{flags:?}");
    }
}

/// Returns a controller that this machine has: version, file, directory of its groups.
pub fn controller() -> (&'static str, &'static str, PathBuf) {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    for line in mounts.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let path = PathBuf::from(words[1]);
        let controllers = fs::read_to_string(path.join("cgroup.controllers"));
        match words[2] {
            "cgroup" if words[3].split(',').any(|o| o == "pids") => return ("1", "pids.max", path),
            "cgroup2" if controllers.is_ok_and(|all| all.contains("pids")) => {
                return ("2", "pids.max", path);
            }
            _ => {}
        }
    }
    panic!("no hierarchy has the controller pids:\n{mounts}");
}

/// Returns the processes in a control group, without KVM's kernel thread, which older kernels add.
pub fn members(group: &Path) -> Vec<String> {
    let all = fs::read_to_string(group.join("cgroup.procs")).unwrap();
    let programs = all.lines().filter(|process| {
        // A kernel thread has no program.
        fs::read_link(format!("/proc/{process}/exe")).is_ok()
    });
    programs.map(str::to_owned).collect()
}

#[test]
fn control_groups_hold_the_guest_and_are_cleaned() {
    let world = World::new();
    world.config("up", &json!({}));
    let (version, file, hierarchy) = controller();
    let value = format!("{file}=77");
    let parent = format!("bantam-test-{}", std::process::id());
    let flags = [
        "--cgroup",
        &value,
        "--cgroup-version",
        version,
        "--parent-cgroup",
        &parent,
    ];
    let group = hierarchy.join(&parent).join("g1");
    let guest = start(&world, "g1", &[&flags[..], &["--daemonize"]].concat());
    assert_eq!(fs::read_to_string(group.join(file)).unwrap().trim(), "77");
    assert_eq!(members(&group), [guest.0.to_string()]);
    guest.end();
    expect(&world.clean("g1"), 0);
    assert!(!group.exists() && hierarchy.join(&parent).exists());

    // A failed start leaves no group.
    let bad = format!("{file}=nonsense");
    let flags = ["--cgroup", &bad, "--parent-cgroup", &parent];
    let text = expect(&output(&mut with_flags(&world, "g1", &flags)), 1);
    contains(&text, &["pids.max", "nonsense"]);
    assert!(!group.exists());
    let text = expect(
        &output(&mut with_flags(
            &world,
            "g1",
            &["--cgroup", "nothing.max=1"],
        )),
        152,
    );
    contains(&text, &["controller `nothing`"]);
    fs::remove_dir(hierarchy.join(&parent)).unwrap();
}

/// With version 2, the process is made in its group, also in a PID namespace of its own.
#[test]
fn a_guest_that_is_detached_is_made_in_its_control_group() {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let mut lines = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    let Some(two) = lines.find(|words| words[2] == "cgroup2") else {
        println!("no control groups of version 2 are mounted here");
        return;
    };
    let world = World::new();
    world.config("up", &json!({}));
    let parent = format!("bantam-test-two-{}", std::process::id());
    let group = Path::new(two[1]).join(&parent).join("g2");
    let words = format!("--cgroup cgroup.max.depth=7 --cgroup-version 2 --parent-cgroup {parent}");
    let flags: Vec<&str> = words.split(' ').collect();
    for more in [&["--daemonize"][..], &["--daemonize", "--new-pid-ns"]] {
        let guest = start(&world, "g2", &[&flags[..], more].concat());
        let depth = fs::read_to_string(group.join("cgroup.max.depth")).unwrap();
        assert_eq!(depth.trim(), "7");
        assert_eq!(members(&group), [guest.0.to_string()], "{more:?}");
        guest.end();
        expect(&world.clean("g2"), 0);
        assert!(!group.exists());
    }

    // A group that accepts no process: the start reports it, and leaves nothing.
    let threaded = Path::new(two[1]).join(&parent).join("threads");
    let invalid = threaded.join("invalid");
    fs::create_dir(&threaded).unwrap();
    fs::write(threaded.join("cgroup.type"), "threaded").unwrap();
    fs::create_dir(&invalid).unwrap();
    let words = format!("--cgroup-version 2 --parent-cgroup {parent}/threads/invalid --daemonize");
    let flags: Vec<&str> = words.split(' ').collect();
    let text = expect(&output(&mut with_flags(&world, "g2", &flags)), 1);
    contains(
        &text,
        &["move the process into the control group", "threads/invalid"],
    );
    fs::remove_dir(invalid).unwrap();
    fs::remove_dir(threaded).unwrap();
    fs::remove_dir(Path::new(two[1]).join(&parent)).unwrap();
}

#[test]
fn a_user_from_uid_auto_cannot_be_named_by_another_guest() {
    let world = World::new();
    world.config("up", &json!({}));
    let mut command = Command::new(jailer());
    command.args(["--id", "g1", "--exec-file", bantam(), "--uid", "auto"]);
    command.args([
        "--uid-range",
        "64310-64310",
        "--daemonize",
        "--chroot-base-dir",
    ]);
    command.arg(world.path("base"));
    command.arg("--config-file").arg(world.path("vm.json"));
    expect(&output(command.args(["--", "--no-api"])), 0);
    let guest = Orphan::of(&world, "g1");
    let mut command = Command::new(jailer());
    command.args([
        "--id",
        "g2",
        "--exec-file",
        bantam(),
        "--uid",
        "64310",
        "--gid",
        "64310",
    ]);
    let text = expect(
        &output(command.arg("--chroot-base-dir").arg(world.path("base"))),
        152,
    );
    contains(&text, &["--uid: user 64310 belongs to a running guest"]);
    guest.end();
}

#[test]
fn uid_auto_gives_each_guest_its_own_user() {
    let world = World::new();
    world.config("up", &json!({}));
    let allotted = |id: &str| {
        let mut command = Command::new(jailer());
        command.args(["--id", id, "--exec-file", bantam(), "--uid", "auto"]);
        command.args([
            "--uid-range",
            "64300-64301",
            "--daemonize",
            "--chroot-base-dir",
        ]);
        command
            .arg(world.path("base"))
            .arg("--config-file")
            .arg(world.path("vm.json"));
        command.args(["--", "--no-api"]).stdin(Stdio::null());
        output(&mut command)
    };
    let mut guests = Vec::new();
    for id in ["g1", "g2"] {
        expect(&allotted(id), 0);
        guests.push(Orphan::of(&world, id));
    }
    let users: Vec<_> = guests.iter().map(|guest| guest.status("Uid")).collect();
    assert_ne!(users[0], users[1]);
    contains(
        &expect(&allotted("g3"), 1),
        &["between 64300 and 64301", "--uid-range"],
    );
    assert!(!world.root("g3").exists());
    guests.remove(0).end();
    expect(&allotted("g3"), 0);
    Orphan::of(&world, "g3").end();
    guests.remove(0).end();
}
