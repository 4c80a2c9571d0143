//! The dependency directions of the workspace, and the foundation it stands on, as `cargo tree` sees them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may be blunt: a failed unwrap is a failed test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

#[path = "layering/devices.rs"]
mod devices;

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
fn the_foundation_is_used() {
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
fn no_crate_of_the_foundation_comes_twice() {
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
