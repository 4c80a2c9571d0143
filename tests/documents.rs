//! Runs the commands of the README and the manual: every block marked `sh run`, in the order of its page, on a fresh
//! host. A block marked `text expect` after it lists lines that its output must contain, in this order.

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
#[path = "jailer/world.rs"]
mod world;

use harness::{announce, bantam, needs_kvm, sh};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use world::World;

/// A runnable block of a page.
struct Block {
    /// Line of the page on which its commands begin.
    line: usize,
    commands: String,
    expected: Vec<String>,
}

/// The top of the checkout.
fn project() -> PathBuf {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    top.canonicalize().unwrap()
}

/// Returns the runnable blocks of `page`.
fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut lines = page.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(info) = line.strip_prefix("```").filter(|info| !info.is_empty()) else {
            if line == "```" {
                // A block without a language is skipped to its end.
                lines.by_ref().find(|(_, line)| *line == "```");
            }
            continue;
        };
        let body: Vec<&str> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| *line != "```")
            .collect();
        match info {
            "sh run" => blocks.push(Block {
                line: number + 2,
                commands: body.join("\n"),
                expected: Vec::new(),
            }),
            "text expect" => {
                let block = blocks.last_mut().expect("a block to expect this of");
                block.expected = body.iter().map(|line| (*line).to_owned()).collect();
            }
            _ => panic!("line {}: unknown kind of block `{info}`", number + 1),
        }
    }
    blocks
}

/// Collapses each run of white space, so that columns compare.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Checks that `output` has the lines that `block` expects, in their order.
fn check(page: &str, block: &Block, output: &str) {
    let mut rest = plain(output);
    for line in &block.expected {
        let Some(at) = rest.find(&plain(line)) else {
            panic!(
                "{page}:{}: `{line}` is missing in its place in:\n{output}",
                block.line
            );
        };
        rest = rest.split_off(at + plain(line).len());
    }
}

/// Runs all blocks of `name`, a page of the project.
fn run(name: &str) {
    needs_kvm();
    announce(name);
    let page = fs::read_to_string(project().join(name)).unwrap();
    let blocks = blocks(&page);
    assert!(!blocks.is_empty(), "{name} has no block marked `sh run`");
    let world = World::new();
    sh("ip link set lo up; mkdir -p /var/lib/bantam; mount -t tmpfs tmpfs /var/lib/bantam");
    let here = world.path("project");
    fs::create_dir(&here).unwrap();
    for entry in ["resources", "target"] {
        symlink(project().join(entry), here.join(entry)).unwrap();
    }
    let mut script =
        String::from("set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n");
    for (number, block) in blocks.iter().enumerate() {
        script += &format!("echo; echo '@@ {number}'\n{}\n", block.commands);
    }
    let programs = Path::new(bantam())
        .parent()
        .unwrap()
        .canonicalize()
        .unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let output = Command::new("timeout")
        .args([
            "--kill-after=5",
            "600",
            "bash",
            "-c",
            &format!("exec 2>&1\n{script}"),
        ])
        .current_dir(&here)
        .env("PATH", path)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    let reached = text.matches("\n@@ ").count();
    assert!(
        output.status.success(),
        "{name}: {}: the block at line {} failed:\n{text}",
        output.status,
        blocks[reached.max(1) - 1].line
    );
    for (number, block) in blocks.iter().enumerate() {
        let from = text.split(&format!("\n@@ {number}\n")).nth(1).unwrap();
        check(name, block, from.split("\n@@ ").next().unwrap());
    }
}

#[test]
fn the_readme() {
    run("README.md");
}

#[test]
fn configuration() {
    run("resources/docs/configuration.md");
}

#[test]
fn guests_by_name() {
    run("resources/docs/bantamctl.md");
}

#[test]
fn pools_and_volumes() {
    run("resources/docs/storage.md");
}

#[test]
fn snapshots_and_forks() {
    run("resources/docs/snapshots.md");
}

#[test]
fn the_api() {
    run("resources/docs/api.md");
}

#[test]
fn observability() {
    run("resources/docs/observability.md");
}

/// A page with a runnable block that no test names would not be run.
#[test]
fn every_page_with_a_runnable_block_is_tested() {
    let tests = include_str!("documents.rs");
    let manual = fs::read_dir(project().join("resources/docs")).unwrap();
    let manual = manual.map(|entry| entry.unwrap().path());
    for page in manual.chain([
        project().join("README.md"),
        project().join("CONTRIBUTING.md"),
    ]) {
        if page.extension().is_some_and(|extension| extension == "md")
            && !blocks(&fs::read_to_string(&page).unwrap()).is_empty()
        {
            let name = page.strip_prefix(project()).unwrap();
            assert!(
                tests.contains(&format!("run(\"{}\")", name.display())),
                "{}",
                name.display()
            );
        }
    }
}

#[test]
fn a_missing_line_of_the_output_is_an_error() {
    let page = "```sh run\necho one\n```\n```text expect\none\ntwo\n```\n";
    let block = &blocks(page)[0];
    check("page", block, "one   \n  two\n");
    for output in ["", "one", "two one"] {
        let checked = std::panic::catch_unwind(|| check("page", block, output));
        assert!(checked.is_err(), "{output}");
    }
}
