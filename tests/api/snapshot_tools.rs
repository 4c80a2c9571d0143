//! Snapshots on the command line: `bantam snapshot`, `--restore`, and the questions of Firecracker's clients.

use crate::monitor::{Monitor, said_by_guest, wait_until};
use crate::saved::edit;
use crate::snapshot::{counting, restored, save, ticks, ticks_on};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the program with these arguments in `dir`.
fn bantam(dir: &Path, words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bantam"));
    let command = command.args(words).current_dir(dir).stdin(Stdio::null());
    command.output().unwrap()
}

/// Runs the program, which must succeed, and returns its output.
fn said(dir: &Path, words: &[&str]) -> String {
    let output = bantam(dir, words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {errors}");
    assert_eq!(errors, "", "{words:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs the program, which must fail, and returns its error.
fn complaint(dir: &Path, words: &[&str]) -> String {
    let output = bantam(dir, words);
    assert_eq!(output.status.code(), Some(1), "{words:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Creates a full snapshot and two diffs, `full`, `one` and `two`. Returns the guest's last number.
fn chain(dir: &Path) -> u64 {
    let monitor = counting();
    save(&monitor, dir, "full", "Full");
    for name in ["one", "two"] {
        let before = ticks(&monitor).len();
        wait_until("ticks", || (ticks(&monitor).len() > before).then_some(()));
        save(&monitor, dir, name, "Diff");
    }
    ticks(&monitor).last().copied().unwrap()
}

#[test]
fn the_format_version_is_printed() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    save(&counting(), dir, "s", "Full");
    assert_eq!(said(dir, &["--snapshot-version"]), "v1.0.0\n");
    let describe = ["--describe-snapshot", "s.state"];
    assert_eq!(said(dir, &describe), "v1.0.0\n");
    // Even a later version is printed.
    let file = File::options().write(true).open(dir.join("s.state"));
    file.unwrap().write_all_at(&[7], 8).unwrap();
    assert_eq!(said(dir, &describe), "v7.0.0\n");
    let complaint = complaint(dir, &["--describe-snapshot", "s.memory"]);
    assert!(
        complaint.contains("s.memory: this is not a snapshot"),
        "{complaint}"
    );
}

#[test]
fn info_describes_a_snapshot() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    chain(dir);
    let text = said(dir, &["snapshot", "info", "two.state"]);
    for part in [
        "2 vCPUs, 128 MiB",
        "drive d",
        "diff, ",
        "full, ",
        "one.state",
        "full.state",
    ] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    let json = said(dir, &["snapshot", "info", "two.state", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["vcpu_count"], 2);
    assert_eq!(json["devices"], json!(["drive d"]));
    assert_eq!(json["chain"].as_array().unwrap().len(), 2);
    fs::remove_file(dir.join("one.state")).unwrap();
    let text = said(dir, &["snapshot", "info", "two.state"]);
    assert!(text.contains("one.state, which is missing"), "{text}");
    // Control sequences from a file do not reach the terminal.
    edit(&dir.join("two.state"), |state| {
        state["written_by"] = json!("\u{1b}[2J");
    });
    let text = said(dir, &["snapshot", "info", "two.state"]);
    assert!(!text.contains('\u{1b}'), "{text}");
    let complaint = complaint(dir, &["snapshot", "info", "two.memory"]);
    assert!(complaint.contains("not a snapshot"), "{complaint}");
}

#[test]
fn verify_finds_damage() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    chain(dir);
    let verify = ["snapshot", "verify", "two.state", "two.memory"];
    let text = said(dir, &verify);
    assert!(text.contains("is intact"), "{text}");
    assert!(text.contains("3 files"), "{text}");
    let alone = complaint(dir, &["snapshot", "verify", "two.state"]);
    assert!(alone.contains("name the memory file"), "{alone}");

    // A flipped bit in the lowest file, and data in a hole.
    let path = dir.join("full.memory");
    let whole = fs::read(&path).unwrap();
    let last = whole.iter().rposition(|byte| *byte != 0).unwrap();
    for (at, expected) in [
        (last, "differ from what was saved"),
        (64 << 20, "where the snapshot has none"),
    ] {
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(&[whole[at] ^ 4], at as u64).unwrap();
        let complaint = complaint(dir, &verify);
        assert!(complaint.contains("full.memory"), "{complaint}");
        assert!(complaint.contains(expected), "{complaint}");
        file.write_all_at(&[whole[at]], at as u64).unwrap();
    }
    fs::copy(dir.join("one.memory"), dir.join("two.memory")).unwrap();
    let swapped = complaint(dir, &verify);
    assert!(swapped.contains("is not marked as the memory"), "{swapped}");
    fs::remove_file(dir.join("full.state")).unwrap();
    let lacking = complaint(dir, &verify);
    assert!(lacking.contains("full.state"), "{lacking}");
}

#[test]
fn merge_makes_one_snapshot_of_a_chain() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let at = chain(dir);
    let before = digest(dir);
    let merge = ["snapshot", "merge", "two.state", "two.memory"];
    said(dir, &[&merge[..], &["--output", "merged"]].concat());
    assert_eq!(digest(dir), before, "the sources are as they were");
    let verified = said(dir, &["snapshot", "verify", "merged"]);
    assert!(verified.contains("in 1 file\n"), "{verified}");
    let memory = fs::metadata(dir.join("merged/memory")).unwrap();
    assert_eq!(memory.len(), 128 << 20);
    assert!(memory.blocks() * 512 < 1 << 20, "holes are kept");
    let info = said(dir, &["snapshot", "info", "merged"]);
    assert!(info.contains("full, "), "{info}");
    let id = |name: &str| {
        let info = said(dir, &["snapshot", "info", name, "--json"]);
        serde_json::from_str::<Value>(&info).unwrap()["id"].clone()
    };
    assert_eq!(id("merged"), id("two.state"), "it is the same snapshot");
    assert!(pages(dir, "merged/state", "merged/memory") == pages(dir, "two.state", "two.memory"));
    let names = fs::read_dir(dir.join("merged")).unwrap().count();
    assert_eq!(names, 2);
    let again = complaint(dir, &[&merge[..], &["--output", "merged"]].concat());
    assert!(again.contains("is there already"), "{again}");

    // The result loads without the chain.
    for suffix in ["state", "memory"] {
        let merged = dir.join("merged").join(suffix);
        fs::rename(merged, dir.join(format!("merged.{suffix}"))).unwrap();
        for name in ["full", "one"] {
            fs::remove_file(dir.join(format!("{name}.{suffix}"))).unwrap();
        }
    }
    let monitor = restored(dir, "merged");
    let now = ticks_on(&monitor);
    assert!(now + 10 > at && now < at + 10, "{at:x}, then {now:x}");

    // A damaged snapshot is not merged.
    let file = File::options().write(true).open(dir.join("merged.memory"));
    let first = fs::read(dir.join("merged.memory")).unwrap();
    let first = first.iter().position(|byte| *byte != 0).unwrap();
    file.unwrap().write_all_at(&[0], first as u64).unwrap();
    let merge = ["snapshot", "merge", "merged.state", "merged.memory"];
    let damaged = complaint(dir, &[&merge[..], &["--output", "worse"]].concat());
    assert!(damaged.contains("nothing was merged"), "{damaged}");
    assert!(!dir.join("worse").exists());
}

#[test]
fn a_later_diff_loads_on_the_merged_snapshot() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let monitor = counting();
    save(&monitor, dir, "full", "Full");
    for name in ["one", "two", "three"] {
        let before = ticks(&monitor).len();
        wait_until("ticks", || (ticks(&monitor).len() > before).then_some(()));
        save(&monitor, dir, name, "Diff");
    }
    let at = ticks(&monitor).last().copied().unwrap();
    drop(monitor);
    let rename = |from: &str, to: &str| {
        for suffix in ["state", "memory"] {
            let path = |name: &str| dir.join(format!("{name}.{suffix}"));
            fs::rename(path(from), path(to)).unwrap();
        }
    };
    let merge = |name: &str| {
        let [state, memory] = ["state", "memory"].map(|suffix| format!("{name}.{suffix}"));
        let words = ["snapshot", "merge", &state, &memory];
        let to = ["--to-state", "merged.state", "--to-memory", "merged.memory"];
        said(dir, &[&words[..], &to].concat());
    };
    let before = pages(dir, "three.state", "three.memory");
    let verify = ["snapshot", "verify", "three.state", "three.memory"];

    merge("one");
    rename("one", "was-one");
    // Elsewhere the base is not found, and another snapshot of the chain is not accepted.
    let lacking = complaint(dir, &verify);
    assert!(lacking.contains("one.state"), "{lacking}");
    rename("full", "one");
    let other = complaint(dir, &verify);
    assert!(other.contains("one.state: is snapshot"), "{other}");
    assert!(other.contains("two.state is a diff on"), "{other}");
    rename("merged", "one");
    assert!(pages(dir, "three.state", "three.memory") == before);
    merge("two");
    rename("merged", "two");
    for suffix in ["state", "memory"] {
        fs::remove_file(dir.join(format!("one.{suffix}"))).unwrap();
    }
    let verified = said(dir, &verify);
    assert!(verified.contains("2 files"), "{verified}");
    assert!(pages(dir, "three.state", "three.memory") == before);

    // The diff loads, and can be the base of others.
    let monitor = restored(dir, "three");
    let now = ticks_on(&monitor);
    assert!(now + 10 > at && now < at + 10, "{at:x}, then {now:x}");
    save(&monitor, dir, "four", "Diff");
    drop(monitor);
    merge("four");
    let merged = pages(dir, "merged.state", "merged.memory");
    assert!(merged == pages(dir, "four.state", "four.memory"));
    ticks_on(&restored(dir, "four"));
}

/// Returns the memory of a snapshot as its guest would see it.
pub fn pages(dir: &Path, state: &str, memory: &str) -> Vec<u8> {
    let loaded = vmm::snapshot::load(&dir.join(state), &dir.join(memory)).unwrap();
    let mut all = vec![0; 128 << 20];
    for (page, bytes) in (0..).zip(all.chunks_mut(4096)) {
        let layer = loaded.layers.holder(page).unwrap();
        layer.file.read_exact_at(bytes, page * 4096).unwrap();
    }
    all
}

/// Returns a digest of each file in `dir`.
fn digest(dir: &Path) -> Vec<(std::ffi::OsString, u64)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let mut hasher = std::hash::DefaultHasher::new();
            std::hash::Hasher::write(&mut hasher, &fs::read(entry.path()).unwrap());
            (entry.file_name(), std::hash::Hasher::finish(&hasher))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn restore_resumes_a_guest_from_the_command_line() {
    let files = tempfile::tempdir().unwrap();
    let dir = files.path();
    let monitor = counting();
    save(&monitor, dir, "s", "Full");
    let disk = monitor.path("disk.img");
    let before = ticks(&monitor).last().copied().unwrap();
    let kept = monitor.keep();
    fs::create_dir(dir.join("web1")).unwrap();
    for suffix in ["state", "memory"] {
        fs::rename(
            dir.join(format!("s.{suffix}")),
            dir.join("web1").join(suffix),
        )
        .unwrap();
    }
    let monitor = Monitor::with(|command, _| {
        command.arg("--restore").arg(dir.join("web1"));
    });
    let now = ticks_on(&monitor);
    assert!(now > before && now < before + 6, "{before:x}, then {now:x}");
    let config = monitor.client().get("/vm/config").expect(200).json();
    assert_eq!(config["drives"][0]["path_on_host"], json!(disk));
    drop(monitor);

    // Without an API, standard output has nothing but the console.
    let output = File::create(dir.join("console")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_bantam"))
        .args(["--no-api", "--restore", "web1"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(output)
        .spawn()
        .unwrap();
    wait_until("ticks", || {
        let said = fs::read_to_string(dir.join("console")).unwrap();
        (said_by_guest(&said).matches("tick ").count() > 2).then_some(())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let nowhere = complaint(dir, &["--no-api", "--restore", "nowhere"]);
    assert!(nowhere.contains("--restore nowhere: "), "{nowhere}");
    assert!(nowhere.contains("nowhere/state"), "{nowhere}");
    drop(kept);
}
