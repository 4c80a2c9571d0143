//! Checks the structure of the workspace: the directions in which crates, rooms and files depend on each other, and
//! the crates of the named foundation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may be blunt: a failed unwrap is a failed test"
)]

#[path = "layering/devices.rs"]
mod devices;
#[path = "layering/documents.rs"]
mod documents;
#[path = "layering/imports.rs"]
mod imports;

use imports::{Graph, circles, inside, read, rooms};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const MEMBERS: [&str; 5] = ["boot", "devices", "jailer", "resources", "vmm"];

fn cargo_tree(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(arguments)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Names and versions of the crates `member` is built from, `depth` deep.
fn crates(member: &str, depth: &str) -> BTreeSet<(String, String)> {
    let tree = cargo_tree(&["-p", member, "--depth", depth]);
    let words = tree.lines().map(|line| line.split(' '));
    words
        .filter_map(|mut words| Some((words.next()?.to_owned(), words.next()?.to_owned())))
        .filter(|(name, _)| name != member)
        .collect()
}

#[test]
fn members_depend_in_the_agreed_directions() {
    let allowed: BTreeMap<&str, &[&str]> = BTreeMap::from([
        ("vmm", &["boot", "devices", "resources"][..]),
        ("jailer", &["resources"]),
        ("devices", &["resources"]),
        ("boot", &[]),
        ("resources", &[]),
    ]);
    for member in MEMBERS {
        for (name, _) in crates(member, "9") {
            if MEMBERS.contains(&name.as_str()) {
                assert!(
                    allowed[member].contains(&name.as_str()),
                    "{member} depends on {name}"
                );
            }
        }
    }
}

#[test]
fn members_depend_on_the_agreed_crates() {
    let direct = |member| -> BTreeSet<String> {
        crates(member, "1")
            .into_iter()
            .map(|(name, _)| name)
            .collect()
    };
    for (member, foundation) in [
        (
            "vmm",
            &[
                "kvm-ioctls",
                "kvm-bindings",
                "vm-memory",
                "event-manager",
                "argh",
            ][..],
        ),
        (
            "devices",
            &[
                "virtio-queue",
                "virtio-bindings",
                "vm-memory",
                "event-manager",
                "vm-superio",
            ],
        ),
        ("boot", &["linux-loader", "acpi_tables", "vm-memory"]),
        ("jailer", &["argh"]),
    ] {
        let direct = direct(member);
        for name in foundation {
            assert!(direct.contains(*name), "{member} does not use {name}");
        }
    }
    // KVM is the machine's and the vCPUs' alone.
    for member in ["boot", "devices", "jailer", "resources"] {
        let all = crates(member, "9");
        assert!(
            !all.iter().any(|(name, _)| name.starts_with("kvm-")),
            "{member} knows KVM"
        );
    }
}

#[test]
fn each_agreed_crate_has_one_version() {
    let mut versions = BTreeMap::<String, BTreeSet<String>>::new();
    for member in MEMBERS {
        for (name, version) in crates(member, "99") {
            versions.entry(name).or_default().insert(version);
        }
    }
    let foundation = [
        "kvm-",
        "vm-",
        "vmm-",
        "virtio-",
        "event-manager",
        "linux-loader",
        "acpi_tables",
    ];
    for (name, versions) in versions {
        if !foundation.iter().any(|start| name.starts_with(start)) {
            continue;
        }
        assert_eq!(versions.len(), 1, "{name} comes as {versions:?}");
    }
}

/// KVM ioctls are issued in two rooms only.
#[test]
fn kvm_is_called_from_the_machine_and_the_vcpus() {
    let output = Command::new("grep")
        .args(["-rlE", "kvm_ioctls::|kvm_bindings::", "--include=*.rs", "."])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))
        .output()
        .unwrap();
    assert!(!output.stdout.is_empty(), "nothing calls KVM");
    for file in String::from_utf8(output.stdout).unwrap().lines() {
        assert!(
            file.starts_with("./machine/") || file.starts_with("./vcpu/"),
            "{file} knows KVM"
        );
    }
}

/// The largest number of files in one room that may import each other in a circle.
const MAX_CIRCLE: usize = 3;

/// The source directories of all programs and libraries, with the root file of each.
fn sources() -> Vec<(PathBuf, &'static str)> {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let mut sources = Vec::new();
    for member in MEMBERS {
        let src = root.join(member).join("src");
        sources.push((src.clone(), "lib.rs"));
        for program in fs::read_dir(src.join("bin")).into_iter().flatten() {
            let program = program.unwrap().path();
            assert!(
                program.join("main.rs").exists(),
                "{}: a program is a folder with a main.rs",
                program.display()
            );
            sources.push((program, "main.rs"));
        }
    }
    sources
}

/// The circles in `graph` that are not allowed: any between rooms, and those of more than [`MAX_CIRCLE`] files in a room.
fn forbidden_circles(graph: &Graph) -> Vec<String> {
    let between = circles(&rooms(graph));
    let between = between
        .iter()
        .map(|rooms| format!("rooms in a circle: {rooms:?}"));
    let within = circles(&inside(graph));
    let within = within.iter().filter(|files| files.len() > MAX_CIRCLE);
    let within = within.map(|files| format!("{} files in a circle: {files:?}", files.len()));
    between.chain(within).collect()
}

#[test]
fn no_rooms_import_each_other_in_a_circle() {
    let mut found = Vec::new();
    for (src, root) in sources() {
        let graph = read(&src, root);
        assert!(
            graph.len() > 1 || root == "main.rs",
            "{} has no files",
            src.display()
        );
        let forbidden = forbidden_circles(&graph);
        found.extend(
            forbidden
                .iter()
                .map(|circle| format!("{}: {circle}", src.display())),
        );
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Writes a crate of `files` and returns its forbidden circles.
fn circles_of(files: &[(&str, &str)]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    forbidden_circles(&read(dir.path(), "lib.rs"))
}

#[test]
fn every_way_to_write_an_import_is_seen() {
    let leaf = ("b/mod.rs", "use crate::a::y::Y;");
    for import in [
        "use crate::b::X;",
        "use super::super::b::X;",
        "use crate::{a::y, b::{self, X}};",
        "pub use crate::b as c;",
        "fn f() { crate::b::x(); }",
        "fn f() -> super::super::b::X { todo() }",
        "use crate::b::*;",
    ] {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod y;"),
            ("a/y.rs", import),
            leaf,
        ];
        assert_eq!(circles_of(&files).len(), 1, "{import}");
    }
    for import in [
        "// use crate::b::X;",
        "fn f() { println!(\"crate::b::X\"); }",
        "#[cfg(test)]\nmod tests { use crate::b::X; }",
        "use other::b::X;",
    ] {
        let files = [
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "mod y;"),
            ("a/y.rs", import),
            leaf,
        ];
        assert_eq!(circles_of(&files), [""; 0], "{import}");
    }
}

#[test]
fn a_circle_of_files_in_a_room_is_seen_from_four_files_on() {
    let room = |files: usize| -> Vec<(String, String)> {
        let file = |n| {
            (
                format!("a/f{n}.rs"),
                format!("use super::f{}::X;", (n + 1) % files),
            )
        };
        let mut room: Vec<_> = (0..files).map(file).collect();
        room.push(("a/mod.rs".into(), "mod f0;".into()));
        room.push(("lib.rs".into(), "mod a;".into()));
        room
    };
    for files in 2..6 {
        let room = room(files);
        let room: Vec<_> = room
            .iter()
            .map(|(name, text)| (name.as_str(), text.as_str()))
            .collect();
        assert_eq!(
            circles_of(&room).len(),
            usize::from(files > MAX_CIRCLE),
            "{files}"
        );
    }
}

/// Rooms have a `mod.rs` that begins with module documentation.
#[test]
fn every_room_says_what_it_is() {
    for (src, root) in sources() {
        for file in read(&src, root).into_keys() {
            if file.ends_with("mod.rs") {
                let text = fs::read_to_string(src.join(&file)).unwrap();
                let lines = text
                    .lines()
                    .take_while(|line| line.starts_with("//!"))
                    .count();
                assert!(
                    lines >= 2,
                    "{}: begin with `//!`: what it is, who calls it, what it does not do",
                    src.join(&file).display()
                );
            }
        }
    }
}
