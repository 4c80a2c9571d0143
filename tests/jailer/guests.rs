//! Guests by name: created, started, shown, stopped and undefined.

use crate::harness::{bantam, sh};
use crate::world::{PATIENCE, World, bantamctl, contains, expect, links, output};
use serde_json::Value;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// Ends the guests of a test, even if it fails.
struct Guests<'a> {
    world: &'a World,
    names: &'static [&'static str],
}

impl Drop for Guests<'_> {
    fn drop(&mut self) {
        for name in self.names {
            run(&["destroy", name]);
        }
        let _ = self.world;
    }
}

fn run(words: &[&str]) -> Output {
    output(Command::new(bantamctl()).args(words).stdin(Stdio::null()))
}

fn said(output: &Output) -> String {
    expect(output, 0);
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn show(name: &str) -> Value {
    serde_json::from_str(&said(&run(&["show", name]))).unwrap()
}

fn pool(world: &World) {
    let target = world.path("volumes");
    fs::create_dir(&target).unwrap();
    let target = target.to_str().unwrap();
    said(&run(&[
        "pool", "define", "vms", "--type", "dir", "--target", target,
    ]));
    said(&run(&["pool", "start", "vms"]));
}

fn create(world: &World, name: &str, more: &[&str]) -> Output {
    let kernel = world.path("up");
    let mut words = vec!["create", "--name", name, "--ram", "32", "--kernel"];
    words.extend([kernel.to_str().unwrap(), "--exec-file", bantam()]);
    words.extend(more);
    run(&words)
}

#[test]
fn a_guest_is_created_by_one_command_and_controlled_by_others() {
    let world = World::new();
    pool(&world);
    let _guests = Guests {
        world: &world,
        names: &["web1"],
    };
    let disk = "pool=vms,size=1,format=raw";
    let network = "bridge=br0,address=10.88.0.5/24,bridge-address=10.88.0.1/24";
    let text = said(&create(
        &world,
        "web1",
        &["--disk", disk, "--network", network],
    ));
    contains(
        &text,
        &[
            "memory     32 MiB",
            "vcpus      1",
            "volume web1 of pool vms, 1.00 GiB",
            "tap web1-0 on br0, MAC 52:54:00:",
            "10.88.0.5/24",
            "runs as    user 642",
            "web1 is started",
        ],
    );
    contains(&links().join("\n"), &["web1-0 up=true bridge=br0"]);
    let shown = show("web1");
    assert_eq!(shown["state"], "running");
    assert_eq!(shown["config"]["drives"][0]["size_mib"], Value::Null);
    let process = shown["pid"].as_u64().unwrap();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    contains(
        &status,
        &[&format!("Uid:\t{}", shown["config"]["host"]["uid"])],
    );
    contains(
        &said(&run(&["list"])),
        &["NAME", "web1", "running", &process.to_string()],
    );
    contains(&expect(&run(&["start", "web1"]), 152), &["runs already"]);
    contains(
        &expect(&run(&["undefine", "web1"]), 152),
        &["bantamctl destroy web1"],
    );
    contains(
        &expect(&run(&["volume", "delete", "--pool", "vms", "web1"]), 152),
        &["in use"],
    );

    // The output before the console was connected.
    let started = Instant::now();
    loop {
        let mut console = Command::new(bantamctl());
        console
            .args(["console", "web1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut console = console.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(50));
        console.stdin.take().unwrap().write_all(b"\x1d").unwrap();
        let seen = console.wait_with_output().unwrap();
        assert!(seen.status.success());
        if seen.stdout.starts_with(b"up") {
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{:?}", seen.stdout);
    }

    // The payload is no kernel, and ignores the power button.
    let text = expect(&run(&["stop", "web1", "--timeout", "0"]), 1);
    contains(&text, &["bantamctl destroy web1"]);
    said(&run(&["stop", "web1", "--timeout", "0", "--force"]));
    assert!(!links().join("\n").contains("br0"));
    assert_eq!(show("web1")["state"], "stopped");
    said(&run(&["start", "web1"]));
    assert_eq!(show("web1")["state"], "running");
    said(&run(&["destroy", "web1"]));
    contains(
        &expect(&run(&["destroy", "web1"]), 152),
        &["guest web1 is not running"],
    );
    assert!(world.path("volumes/web1").exists());
    said(&run(&["undefine", "web1", "--remove-all-storage"]));
    assert!(!world.path("volumes/web1").exists());
    contains(
        &expect(&run(&["show", "web1"]), 152),
        &["there is no guest `web1`"],
    );
    assert!(!std::path::Path::new("/srv/jailer/bantam/web1").exists());
}

#[test]
fn a_dry_run_shows_everything_and_makes_nothing() {
    let world = World::new();
    pool(&world);
    let before = world.state();
    let more = [
        "--disk",
        "pool=vms,size=2",
        "--network",
        "bridge=br0",
        "--autostart",
        "--dry-run",
    ];
    let text = said(&create(&world, "web1", &more));
    contains(
        &text,
        &["nothing was created", "\"vcpu_count\": 1", "autostart  yes"],
    );
    assert_eq!(world.state(), before);
    contains(
        &expect(&run(&["start", "web1"]), 152),
        &["bantamctl create --name web1"],
    );
}

#[test]
fn an_impossible_guest_is_refused_and_leaves_nothing() {
    let world = World::new();
    pool(&world);
    said(&create(
        &world,
        "web1",
        &[
            "--disk",
            "pool=vms,size=1",
            "--network",
            "bridge=br0,mac=52:54:00:00:00:01,address=10.0.0.5/24",
            "--no-start",
            "--autostart",
        ],
    ));
    assert_eq!(show("web1")["autostart"], true);
    let uid = show("web1")["config"]["host"]["uid"].to_string();
    sh("ip link add plain type veth peer name other");
    let before = world.state();
    let long = "n".repeat(4096);
    for (name, more, status, parts) in [
        (
            "web1",
            vec![],
            152,
            vec!["--name", "there is a guest `web1` already"],
        ),
        ("a/b", vec![], 153, vec!["`a/b` cannot be a guest's name"]),
        ("../x", vec![], 153, vec!["cannot be a guest's name"]),
        (&long, vec![], 153, vec!["cannot be a guest's name"]),
        (
            "w",
            vec!["--disk", "pool=none,size=1"],
            152,
            vec!["there is no pool `none`"],
        ),
        (
            "w",
            vec!["--disk", "pool=vms,name=web1,size=1,x=y"],
            153,
            vec!["unknown key `x`"],
        ),
        (
            "w",
            vec!["--disk", "pool=vms,size=67108864"],
            153,
            vec!["size"],
        ),
        (
            "w",
            vec!["--network", "bridge=br0,target=much-too-long-name"],
            152,
            vec!["much-too-long-name", "15 bytes"],
        ),
        (
            "w",
            vec!["--network", "bridge=br0,mac=52:54:00:00:00:01"],
            152,
            vec!["guest_mac", "another guest's"],
        ),
        (
            "w",
            vec!["--network", "bridge=br0,address=10.0.0.5/24"],
            152,
            vec!["10.0.0.5", "another guest's"],
        ),
        (
            "w",
            vec!["--uid", &uid],
            152,
            vec!["--uid", "another guest's"],
        ),
        (
            "w",
            vec!["--image", "/nonexistent"],
            153,
            vec!["one of --image"],
        ),
        (
            "w",
            vec!["--ssh-key", "/nonexistent"],
            1,
            vec!["--ssh-key /nonexistent"],
        ),
    ] {
        let text = expect(&create(&world, name, &more), status);
        contains(&text, &parts);
        assert!(text.len() < 1000, "{text}");
        assert_eq!(world.state(), before, "{more:?}");
    }
    // A guest that cannot start stays defined, so that it can be edited.
    let text = expect(&create(&world, "w", &["--network", "bridge=plain"]), 152);
    contains(&text, &["plain is a device of kind `veth`"]);
    assert_eq!(show("w")["state"], "stopped");
    said(&run(&["undefine", "w"]));
    said(&run(&["undefine", "web1", "--remove-all-storage"]));
}
