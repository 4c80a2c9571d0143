//! A test's host for pools: a [`World`] with definitions, markers, default targets and units of its own, and devices
//! for file systems and volume groups.

use crate::harness::sh;
use crate::world::{World, bantamctl, expect, install_units, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Directories that the commands write to.
const OWN: [&str; 4] = [
    "/etc/bantam",
    "/run/bantam/pools",
    "/var/lib/bantam",
    "/etc/systemd/system",
];

pub struct Host {
    pub world: World,
    /// Shell commands that clean up, run in reverse order.
    undo: Vec<String>,
}

impl Host {
    pub fn new() -> Self {
        let world = World::new();
        let mut undo = Vec::new();
        for path in OWN {
            sh(&format!(
                "mkdir -p {path}; mount -t tmpfs -o mode=755 own {path}"
            ));
            undo.push(format!("umount -l {path}"));
        }
        install_units();
        Self { world, undo }
    }

    /// Runs `command` when the test ends, even if the test fails.
    pub fn at_end(&mut self, command: &str) {
        self.undo.push(command.into());
    }

    /// Runs `bantamctl WORDS`.
    pub fn run(&self, words: &str) -> Output {
        let mut command = Command::new(bantamctl());
        command.args(words.split_whitespace()).stdin(Stdio::null());
        output(&mut command)
    }

    /// Runs `bantamctl WORDS`, which must succeed; returns its output.
    pub fn ok(&self, words: &str) -> String {
        let output = self.run(words);
        let said = expect(&output, 0);
        format!("{}{said}", String::from_utf8_lossy(&output.stdout))
    }

    /// Runs `bantamctl WORDS`, which must exit with `status`; returns its standard error.
    pub fn fails(&self, words: &str, status: i32) -> String {
        expect(&self.run(words), status)
    }

    /// Returns the output of `bantamctl WORDS --json`.
    pub fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{words} --json"))).unwrap()
    }

    /// Makes a disk of `size`, in the form of truncate(1), for the time of the test.
    pub fn disk(&mut self, name: &str, size: &str) -> PathBuf {
        let file = self.world.path(name);
        sh("modprobe loop 2>/dev/null || true");
        let device = sh(&format!(
            "truncate -s {size} {0}; losetup -f --show -P {0}",
            file.display()
        ));
        let device = device.trim().to_owned();
        self.at_end(&format!("losetup -d {device}"));
        device.into()
    }

    /// Makes a file system of `kind` on a disk of `size`; returns its mount point.
    pub fn file_system(&mut self, kind: &str, size: &str) -> PathBuf {
        sh(&format!("modprobe {kind} 2>/dev/null || true"));
        let disk = self.disk(&format!("{kind}.disk"), size);
        let path = self.world.path(kind);
        sh(&format!(
            "mkfs.{kind} -q {0}; mkdir {1}; mount {0} {1}",
            disk.display(),
            path.display()
        ));
        self.at_end(&format!("umount {}", path.display()));
        path
    }

    /// Makes an active pool in the directory `target`.
    pub fn dir_pool(&self, name: &str, target: &Path) {
        let target = target.display();
        self.ok(&format!("pool define {name} --type dir --target {target}"));
        self.ok(&format!("pool start {name} --build"));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        while let Some(command) = self.undo.pop() {
            let _ = Command::new("sh").args(["-c", &command]).status();
        }
    }
}
