//! The host on which pools are tried: a [`World`] whose definitions, markers, default targets and units are its
//! own too, and the devices that file systems and volume groups are made on.

use crate::harness::sh;
use crate::world::{World, bantamctl, expect, install_units, output};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What commands write to.
const OWN: [&str; 4] = [
    "/etc/bantam",
    "/run/bantam/pools",
    "/var/lib/bantam",
    "/etc/systemd/system",
];

pub struct Host {
    pub world: World,
    /// Undone in reverse, each by a shell.
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

    /// To be done when the test has ended, however it does.
    pub fn at_end(&mut self, command: &str) {
        self.undo.push(command.into());
    }

    /// `bantamctl WORDS`; what it said with its status.
    pub fn run(&self, words: &str) -> Output {
        let mut command = Command::new(bantamctl());
        command.args(words.split_whitespace()).stdin(Stdio::null());
        output(&mut command)
    }

    /// `bantamctl WORDS`, which must work; what it printed.
    pub fn ok(&self, words: &str) -> String {
        let output = self.run(words);
        let said = expect(&output, 0);
        format!("{}{said}", String::from_utf8_lossy(&output.stdout))
    }

    /// `bantamctl WORDS`, which must end with `status`; what it said.
    pub fn fails(&self, words: &str, status: i32) -> String {
        expect(&self.run(words), status)
    }

    /// What `bantamctl WORDS --json` says.
    pub fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{words} --json"))).unwrap()
    }

    /// A disk of `size`, as truncate(1) reads it, for as long as the test.
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

    /// A file system of `kind` on a disk of `size`; where it is mounted.
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

    /// An active pool in the directory `target`.
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
