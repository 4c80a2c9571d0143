//! Copies of a running guest by one command.

use crate::harness::chance::Chance;
use crate::harness::{bantam, http, mount_btrfs, rounds, sh};
use crate::image;
use crate::snapshot::chatty;
use crate::world::{PATIENCE, World, bantamctl, contains, expect, links, output, tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

/// A world whose guests end with the test.
struct Guests(World);

impl Guests {
    /// Returns a world with a kernel that prints again and again that it is up.
    fn new() -> Self {
        let world = World::new();
        chatty(world.dir.path());
        Self(world)
    }

    fn create(&self, name: &str, more: &[&str]) -> Output {
        let kernel = self.0.path("chatty");
        let mut words = vec!["create", "--name", name, "--ram", "32", "--kernel"];
        words.extend([kernel.to_str().unwrap(), "--exec-file", bantam()]);
        words.extend(more);
        run(&words)
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        let listed = run(&["list", "--json"]);
        let Ok(Value::Array(all)) = serde_json::from_slice(&listed.stdout) else {
            return;
        };
        for guest in all {
            run(&["destroy", guest["name"].as_str().unwrap_or_default()]);
        }
    }
}

fn run(words: &[&str]) -> Output {
    output(Command::new(bantamctl()).args(words).stdin(Stdio::null()))
}

fn said(output: &Output) -> String {
    expect(output, 0);
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json(words: &[&str]) -> Value {
    serde_json::from_str(&said(&run(words))).unwrap()
}

fn root(name: &str) -> PathBuf {
    Path::new("/srv/jailer/bantam").join(name).join("root")
}

/// Fails unless the guest `name` prints something from now on.
fn runs_on(name: &str) {
    let mut console = UnixStream::connect(root(name).join("run/console.socket")).unwrap();
    console.set_read_timeout(Some(PATIENCE)).unwrap();
    let started = Instant::now();
    let mut bytes = vec![0; 1 << 17];
    // The former output comes at once, then the new.
    for _ in 0..3 {
        let read = loop {
            match console.read(&mut bytes) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                read => break read.unwrap(),
            }
        };
        assert!(read > 0, "{name} has ended");
        assert!(started.elapsed() < PATIENCE, "{name} is silent");
    }
}

fn copies() -> Vec<String> {
    let all = json(&["list", "--json"]);
    let all = all.as_array().unwrap().iter();
    let copies = all.filter(|guest| !guest["copy_of"].is_null());
    copies
        .map(|guest| guest["name"].as_str().unwrap().to_owned())
        .collect()
}

/// A file system that can share blocks; it ends with its world.
fn sharing(world: &World) -> PathBuf {
    let at = world.path("sharing");
    mount_btrfs(&world.path("btrfs"), "256M", &at);
    at
}

#[test]
fn one_command_copies_a_running_guest() {
    let guests = Guests::new();
    let world = &guests.0;
    let disks = sharing(world);
    let image = disks.join("web1.img");
    let disk = format!("path={},size=16M", image.display());
    let network =
        "bridge=br0,bridge-address=10.88.0.1/24,address=10.88.0.5/24,mac=52:54:00:00:00:07";
    let more = ["--forkable", "--disk", &disk, "--network", network];
    said(&guests.create("web1", &more));
    runs_on("web1");
    let before = links();
    fs::write(&image, vec![7; 16 << 20]).unwrap();

    let count = rounds(3, 20);
    let forked = json(&["fork", "web1", "--count", &count.to_string(), "--json"]);
    println!("{forked}");
    let names: Vec<_> = (1..=count).map(|number| format!("web1-{number}")).collect();
    assert_eq!(forked["copies"], serde_json::json!(names));
    assert!(forked["held_us"].as_u64().unwrap() > 0);
    assert_eq!(links(), before);
    let (mut users, mut networks) = (HashSet::new(), HashSet::new());
    for name in &names {
        runs_on(name);
        let shown = json(&["show", name]);
        assert_eq!(shown["state"], "running");
        assert_eq!(shown["copy_of"], "web1");
        let proc = PathBuf::from(format!("/proc/{}", shown["pid"]));
        assert!(users.insert(fs::metadata(&proc).unwrap().uid()));
        assert!(networks.insert(fs::metadata(proc.join("ns/net")).unwrap().ino()));
        let inside = sh(&format!("ip netns exec bantam-{name} ip -o addr"));
        contains(&inside, &["10.88.0.1/24", "br0", "lo"]);
        let inside = sh(&format!(
            "ip netns exec bantam-{name} ip -o link show web1-0"
        ));
        contains(&inside, &["master br0", "LOWER_UP"]);
        let copy = disks.join(format!("{name}.root.copy"));
        assert_eq!(fs::read(&copy).unwrap(), vec![7; 16 << 20]);
        let (status, answer) =
            http::ask(&root(name).join("run/firecracker.socket"), "GET", "/", "");
        contains(&answer, &["Running", name]);
        assert_eq!(status, 200);
    }
    runs_on("web1");
    assert!(
        fs::read_dir(root("web1").join("run"))
            .unwrap()
            .all(|entry| {
                !entry
                    .unwrap()
                    .file_name()
                    .to_str()
                    .unwrap()
                    .starts_with("fork")
            })
    );
    contains(&said(&run(&["list"])), &["COPY OF", "web1-3", " web1"]);

    // A copy of a copy whose guest has ended. Taken names are skipped.
    said(&run(&["destroy", "web1"]));
    contains(
        &said(&run(&["fork", "web1-2", "--prefix", "web1"])),
        &["was held for"],
    );
    let last = copies()
        .into_iter()
        .find(|name| !names.contains(name))
        .unwrap();
    runs_on(&last);
    runs_on("web1-2");
    for name in copies() {
        contains(
            &said(&run(&["destroy", &name])),
            &["is destroyed with its disks"],
        );
    }
    contains(
        &expect(&run(&["start", "web1-1"]), 152),
        &["there is no guest `web1-1`"],
    );
    assert_eq!(tree(Path::new("/run/netns")), Vec::<String>::new());
    assert_eq!(tree(Path::new("/run/bantam/jails")), Vec::<String>::new());
    assert_eq!(fs::read_dir("/srv/jailer/bantam").unwrap().count(), 0);
    assert_eq!(fs::read_dir(&disks).unwrap().count(), 1);
}

#[test]
fn a_copy_of_a_guest_that_booted_from_its_image_shares_its_kernel_and_initrd() {
    let guests = Guests::new();
    let world = &guests.0;
    image::write(
        world,
        "boot/vmlinuz-1",
        fs::read(world.path("chatty")).unwrap(),
    );
    image::write(world, "boot/initrd", "an initrd");
    image::write(
        world,
        "boot/grub/grub.cfg",
        image::grub_cfg("vmlinuz-1", true),
    );
    image::image(world);
    let disks = sharing(world);
    let (from, disk) = (world.path("root.img"), disks.join("web1.img"));
    let disk = format!("path={},size=64M", disk.display());
    let words = [
        "create",
        "--name",
        "web1",
        "--ram",
        "32",
        "--exec-file",
        bantam(),
    ];
    let more = [
        "--forkable",
        "--image",
        from.to_str().unwrap(),
        "--disk",
        &disk,
    ];
    said(&run(&[&words[..], &more].concat()));
    runs_on("web1");
    said(&run(&["fork", "web1", "--count", "2"]));
    said(&run(&["fork", "web1-1", "--prefix", "again"]));
    for name in ["web1-1", "web1-2", "again-1"] {
        runs_on(name);
        for file in ["kernel", "initrd"] {
            let [a, b] = ["web1", name].map(|name| fs::metadata(root(name).join(file)).unwrap());
            assert_eq!(a.ino(), b.ino(), "{name}");
            assert_eq!(
                a.gid().to_string(),
                json(&["show", name])["config"]["host"]["gid"].to_string()
            );
        }
    }
    said(&run(&["destroy", "web1-1"]));
    assert_eq!(fs::read(root("web1").join("initrd")).unwrap(), b"an initrd");
}

#[test]
fn an_impossible_copy_is_reported_before_anything_is_made() {
    let guests = Guests::new();
    let disk = format!("path={},size=1M", guests.0.path("web1.img").display());
    said(&guests.create("web1", &["--disk", &disk]));
    runs_on("web1");
    let before = guests.0.state();
    let text = expect(&run(&["fork", "web1"]), 152);
    contains(
        &text,
        &[
            "machine-config.forkable",
            "--forkable",
            "drives[0]",
            "btrfs or XFS",
        ],
    );
    contains(
        &expect(&run(&["fork", "none"]), 152),
        &["there is no guest `none`"],
    );
    contains(
        &expect(&run(&["fork", "web1", "--count", "0"]), 153),
        &["--count 0"],
    );
    assert_eq!(guests.0.state(), before);
    said(&run(&["destroy", "web1"]));
    contains(
        &expect(&run(&["fork", "web1"]), 152),
        &["guest web1 is not running"],
    );
}

/// Returns the processes that were started for the guest `name` or a copy of it.
fn processes(name: &str) -> Vec<String> {
    let all = fs::read_dir("/proc").unwrap();
    let all = all.filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let words = all.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    let (copy, own) = (format!(" {name}-"), format!(" {name} "));
    words
        .filter(|line| line.contains(&copy) || line.contains(&own))
        .collect()
}

/// Fails if there is anything of a copy of `name`.
fn nothing_is_left(name: &str, disks: &Path, context: &str) {
    assert_eq!(copies(), Vec::<String>::new(), "{context}");
    let none = Vec::<String>::new();
    assert_eq!(tree(Path::new("/run/netns")), none, "{context}");
    assert_eq!(tree(Path::new("/run/bantam/copies")), none, "{context}");
    for (directory, kept) in [
        (Path::new("/srv/jailer/bantam"), name.to_owned()),
        (disks, format!("{name}.img")),
    ] {
        let names = fs::read_dir(directory).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, [kept.as_str()], "{context}");
    }
    let in_jail = tree(&root(name).join("run"));
    let link = in_jail.iter().find(|file| file.contains("fork-"));
    assert_eq!(link, None, "{context}");
    let own = processes(name);
    assert_eq!(own.len(), 1, "{context}: {own:?}");
}

#[test]
fn a_fork_that_ends_early_leaves_nothing() {
    let guests = Guests::new();
    let disks = sharing(&guests.0);
    let disk = format!("path={},size=16M", disks.join("early.img").display());
    let more = [
        "--forkable",
        "--disk",
        &disk,
        "--network",
        "bridge=br0,address=10.88.0.5/24",
    ];
    said(&guests.create("early", &more));
    runs_on("early");
    let fork = ["fork", "early", "--count", "2"];
    let started = Instant::now();
    said(&run(&fork));
    let all = started.elapsed();
    for name in copies() {
        said(&run(&["destroy", &name]));
    }
    nothing_is_left("early", &disks, "destroyed");
    // The random numbers begin anew with each signal, so that either can be tried alone.
    for (signal, rounds) in [
        (Signal::SIGINT, rounds(6, 50)),
        (Signal::SIGKILL, rounds(14, 200)),
    ] {
        let mut chance = Chance(0xf04c);
        for round in 0..rounds {
            let moment = all.mul_f64(1.1 * chance.below(1000) as f64 / 1000.0);
            let context = format!("{signal}, round {round}, after {moment:?}");
            let mut command = Command::new(bantamctl());
            command.args(fork).stdin(Stdio::null());
            command.stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            std::thread::sleep(moment);
            kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
            child.wait().unwrap();
            runs_on("early");
            if signal == Signal::SIGKILL {
                match round % 2 {
                    0 => expect(&run(&["clean"]), 0),
                    // The next fork cleans up as well.
                    _ => expect(&run(&["fork", "early", "--prefix", "next"]), 0),
                };
            } else if copies().len() != 2 {
                // A signal at the very end undoes nothing.
                nothing_is_left("early", &disks, &context);
            }
            // Copies that had received their guest run on.
            for name in copies() {
                runs_on(&name);
                said(&run(&["destroy", &name]));
            }
            nothing_is_left("early", &disks, &context);
        }
    }
}

#[test]
fn copies_that_other_processes_are_making_are_not_removed() {
    let guests = Guests::new();
    said(&guests.create("busy", &["--forkable", "--network", "bridge=br0"]));
    runs_on("busy");
    let forks = ["one", "two", "three"].map(|prefix| {
        let mut command = Command::new(bantamctl());
        command.args(["fork", "busy", "--count", "3", "--prefix", prefix]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    });
    let mut cleaned = 0;
    let mut ends = forks.map(|mut fork| {
        loop {
            if let Some(end) = fork.try_wait().unwrap() {
                break end;
            }
            said(&run(&["clean"]));
            cleaned += 1;
        }
    });
    assert!(ends.iter_mut().all(|end| end.success()), "{ends:?}");
    assert!(cleaned > 3);
    said(&run(&["clean"]));
    assert_eq!(copies().len(), 9);
    copies().iter().for_each(|name| runs_on(name));
}
