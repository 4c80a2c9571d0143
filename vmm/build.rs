//! Compiles the built-in seccomp lists to BPF programs, so that a start need not, with the indices of the instructions where
//! the process writes its own id.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    reason = "the modules are the monitor's, and a failed build reports the error"
)]

#[path = "src/seccomp/compile.rs"]
mod compile;
#[path = "src/seccomp/rules.rs"]
mod rules;

use rules::{List, Lists};
use std::fmt::Write as _;
use std::path::Path;

/// Two ids that no process has. The programs differ only where the id is used.
const PIDS: [u32; 2] = [0x7fff_fffe, 0x7fff_fffd];

fn main() {
    for file in ["build.rs", "src/seccomp"] {
        println!("cargo::rerun-if-changed={file}");
    }
    let text = std::fs::read("src/seccomp/default.json").unwrap();
    let lists: Lists =
        serde_json::from_slice(&text).unwrap_or_else(|e| panic!("default.json: {e}"));
    let mut source = String::new();
    for (name, parts) in lists.threads(&lists) {
        writeln!(
            source,
            "pub(super) static {}: &[BuiltIn] = &[",
            name.to_uppercase()
        )
        .unwrap();
        source.push_str(&programs(&parts));
        source.push_str("];\n");
    }
    let out = std::env::var("OUT_DIR").unwrap();
    std::fs::write(Path::new(&out).join("seccomp_built_in.rs"), source).unwrap();
}

fn programs(parts: &[&List]) -> String {
    let [programs, others] = PIDS.map(|pid| compile::compile(parts, pid).unwrap());
    let mut source = String::new();
    for (program, other) in programs.iter().zip(&others) {
        let pairs = program.iter().zip(other).enumerate();
        let pid_at: Vec<_> = pairs
            .filter(|(_, (a, b))| a.k != b.k)
            .map(|(at, _)| at)
            .collect();
        let code: Vec<_> = program.iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect();
        writeln!(
            source,
            "BuiltIn {{ pid_at: &{pid_at:?}, code: &{code:?} }},"
        )
        .unwrap();
    }
    source
}
