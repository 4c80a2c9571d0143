//! Mistakes of users: each error names the file, the key and the remedy, and nothing is lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test may be blunt: a failed unwrap is a failed test"
)]

#[path = "harness/mod.rs"]
mod harness;

use harness::{Ended, Guest, bantam, network, payload, sh};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs the monitor on `config`, and expects `status` and a message with all of `parts`.
fn refused(config: &Path, status: i32, parts: &[&str]) {
    refused_by(Command::new(bantam()), config, status, parts);
}

fn refused_by(mut command: Command, config: &Path, status: i32, parts: &[&str]) {
    command.args(["--no-api", "--config-file"]).arg(config);
    let output = command.output().unwrap();
    let message = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{message}");
    for part in parts {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

fn good(dir: &Path) -> Guest {
    Guest::bare(&payload::write(dir, &payload::exit(3))).mem_mib(32)
}

/// Writes `text` as the configuration, and expects an error.
fn bad_text(text: &str, parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vm.json");
    fs::write(&path, text).unwrap();
    let name = path.display().to_string();
    let parts: Vec<&str> = parts.iter().copied().chain([name.as_str()]).collect();
    refused(&path, 152, &parts);
}

#[test]
fn bad_json_is_refused_with_its_place() {
    bad_text("{", &["line 1", "ends early"]);
    bad_text("kernel: x", &["JSON"]);
    bad_text(
        r#"{"boot-source": {"kernel_image_path": "k", "kernel": 1}, "drives": []}"#,
        &["boot-source", "unknown field `kernel`"],
    );
    bad_text(
        r#"{"boot-source": {"kernel_image_path": 7}, "drives": []}"#,
        &["boot-source.kernel_image_path", "string"],
    );
    let vcpus = |n: u32| {
        format!(
            r#"{{"boot-source": {{"kernel_image_path": "k"}}, "drives": [],
                "machine-config": {{"vcpu_count": {n}, "mem_size_mib": 128}}}}"#
        )
    };
    for n in [0, 33] {
        bad_text(&vcpus(n), &["machine-config.vcpu_count", "from 1 to 32"]);
    }
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.json");
    refused(&missing, 152, &["missing.json", "No such file"]);
}

#[test]
fn an_unknown_section_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let guest = good(dir.path());
    let path = guest.write_config();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replacen('{', r#"{"tomorrow": 1,"#, 1)).unwrap();
    refused(&path, 3, &["tomorrow", "ignored"]);
}

#[test]
fn files_that_are_no_kernel_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let whole = fs::read(payload::write(dir.path(), &payload::exit(3))).unwrap();
    for (kernel, parts) in [
        (
            dir.path().join("none"),
            &["kernel_image_path", "No such file"][..],
        ),
        (
            file(
                "text",
                b"#!/bin/sh\necho not a kernel, though it is long enough\n",
            ),
            &["text"],
        ),
        (file("empty", b""), &["empty"]),
        (file("cut", &whole[..whole.len() - 1]), &["cut"]),
        (file("head", &whole[..40]), &["head"]),
        (dir.path().to_owned(), &["regular file"]),
    ] {
        let name = kernel.display().to_string();
        let config = Guest::bare(&kernel);
        let path = config.write_config();
        let parts: Vec<&str> = parts
            .iter()
            .copied()
            .chain([name.as_str(), "vm.json"])
            .collect();
        refused(&path, 152, &parts);
    }
}

#[test]
fn files_that_are_no_image_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("missing.img");
    let config = good(dir.path()).drive("a", &missing, json!({}));
    refused(
        &config.write_config(),
        152,
        &["drives[0].path_on_host", "missing.img", "truncate"],
    );
    let config = good(dir.path()).drive("a", dir.path(), json!({"is_read_only": true}));
    refused(
        &config.write_config(),
        152,
        &["drives[0].path_on_host", "neither a file nor"],
    );
}

#[test]
fn a_drive_in_use_is_refused_and_a_read_only_one_shared() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("disk.img");
    fs::write(&image, vec![0; 4096]).unwrap();
    // A guest that runs for ever.
    let endless = tempfile::tempdir().unwrap();
    let forever = payload::write(endless.path(), &payload::endless("up"));
    let running = |more: serde_json::Value| {
        let mut running = Guest::bare(&forever)
            .mem_mib(32)
            .drive("a", &image, more)
            .start();
        running.wait_for("up");
        running
    };
    let in_use = &["drives[0].path_on_host", "in use", "disk.img"];
    let with = |more: serde_json::Value| good(dir.path()).drive("a", &image, more);
    let writer = running(json!({}));
    refused(&with(json!({})).write_config(), 152, in_use);
    refused(
        &with(json!({"is_read_only": true})).write_config(),
        152,
        in_use,
    );
    drop(writer.kill());
    let reader = running(json!({"is_read_only": true}));
    refused(&with(json!({})).write_config(), 152, in_use);
    let ended: Ended = with(json!({"is_read_only": true})).run();
    ended.expect(3);
    drop(reader.kill());
}

#[test]
fn memory_that_cannot_be_mapped_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    // More than a process with a limited address space can map.
    let config = good(dir.path()).mem_mib(4096);
    let mut limited = Command::new("prlimit");
    limited.args(["--as=2147483648", bantam()]);
    refused_by(
        limited,
        &config.write_config(),
        1,
        &["machine-config.mem_size_mib", "4096 MiB"],
    );
}

#[test]
fn more_memory_than_the_host_has_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let total = sh("awk '/MemTotal/ {print $2}' /proc/meminfo");
    let mib = total.trim().parse::<u32>().unwrap() / 1024 + 1024;
    let config = good(dir.path()).mem_mib(mib);
    refused(
        &config.write_config(),
        3,
        &["warning", "machine-config.mem_size_mib"],
    );
}

#[test]
fn a_tap_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    network::enter(1);
    let endless = tempfile::tempdir().unwrap();
    let forever = payload::write(endless.path(), &payload::endless("up"));
    let mut running = Guest::bare(&forever).mem_mib(32).interface("tap0").start();
    running.wait_for("up");
    let config = good(dir.path()).interface("tap0");
    refused(
        &config.write_config(),
        1,
        &["network-interfaces[0].host_dev_name", "tap0", "in use"],
    );
    drop(running.kill());
}

/// Returns the monitor's command in a mount namespace with another `/dev/kvm`.
fn with_kvm(set_up: &str) -> Command {
    let mut command = Command::new("unshare");
    let script = format!("{set_up}; exec \"$@\"");
    command.args(["-m", "sh", "-ec", &script, "sh", bantam()]);
    command
}

#[test]
fn a_missing_or_unusable_kvm_is_reported() {
    let dir = tempfile::tempdir().unwrap();
    let guest = good(dir.path());
    let config = guest.write_config();
    let none = with_kvm("mount -t tmpfs none /dev");
    refused_by(none, &config, 1, &["there is no /dev/kvm", "modprobe"]);
    let not_kvm = with_kvm("mount --bind /dev/null /dev/kvm");
    refused_by(not_kvm, &config, 1, &["is it KVM"]);
    sh(&format!("chmod -R o+rX {}", dir.path().display()));
    sh(&format!("chmod -R o+rX {}", guest.dir().display()));
    let mut nobody = Command::new("unshare");
    nobody.args([
        "-m",
        "sh",
        "-ec",
        "mkdir -p /run/bantam-test; cp \"$1\" /run/bantam-test/bantam; \
         mount -t tmpfs none /mnt; touch /mnt/kvm; mknod -m 600 /mnt/k c 10 232; \
         mount --bind /mnt/k /dev/kvm; shift; \
         exec setpriv --reuid=65534 --regid=65534 --clear-groups /run/bantam-test/bantam \"$@\"",
        "sh",
        bantam(),
    ]);
    refused_by(
        nobody,
        &config,
        1,
        &["no permission on /dev/kvm", "usermod"],
    );
}
