//! Debian's own disk image, with its kernel, GRUB configuration, systemd and cloud-init: created as a guest by one
//! command, configured by the seed, reached by SSH, stopped by its power button, and started again with its data and
//! its changed configuration.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails"
)]

#[path = "harness/mod.rs"]
mod harness;
#[path = "jailer/world.rs"]
mod world;

use harness::{announce, image, needs_kvm, sh};
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use world::{World, bantamctl, contains, expect};

/// Time limit of a boot to the first login.
const BOOT: Duration = Duration::from_secs(300);

struct Host {
    world: World,
    started: Instant,
}

impl Host {
    fn new() -> Self {
        let world = World::new();
        sh("ip link set lo up");
        sh(&format!(
            "ssh-keygen -q -t ed25519 -N '' -f {}",
            world.path("key").display()
        ));
        fs::create_dir(world.path("volumes")).unwrap();
        Self {
            world,
            started: Instant::now(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.world.path(name)
    }

    /// Runs `bantamctl WORDS`, which must succeed; returns its output.
    fn bantamctl(&self, words: &str) -> String {
        let mut command = Command::new(bantamctl());
        let output = command.args(words.split_whitespace());
        let output = output.stdin(Stdio::null()).output().unwrap();
        expect(&output, 0);
        self.say(words);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Logs the time at which `what` was done.
    fn say(&self, what: &str) {
        println!("{:6.1} s {what}", self.started.elapsed().as_secs_f32());
    }

    /// Runs a command in the guest. The guest's host key must not change.
    fn ssh(&self, command: &str) -> Output {
        let known = format!("UserKnownHostsFile={}", self.path("known").display());
        let mut ssh = Command::new("ssh");
        ssh.args(["-F", "none", "-i"]).arg(self.path("key"));
        for option in [
            known.as_str(),
            "StrictHostKeyChecking=accept-new",
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "ConnectTimeout=30",
            "ServerAliveInterval=30",
        ] {
            ssh.args(["-o", option]);
        }
        ssh.args(["debian@10.88.0.5", command]);
        ssh.stdin(Stdio::null()).output().unwrap()
    }

    /// Waits for the first successful login.
    fn login(&self) {
        let started = Instant::now();
        loop {
            let output = self.ssh("true");
            if output.status.success() {
                break;
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                started.elapsed() < BOOT,
                "{said}; its console:\n{}",
                self.console()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
        self.say("logged in");
    }

    /// Runs a command in the guest, which must succeed; returns its output.
    fn guest(&self, command: &str) -> String {
        let output = self.ssh(command);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success(),
            "{command}: {}\n{said}",
            output.status
        );
        self.say(command);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Returns the guest's output, for the message of a failed test.
    fn console(&self) -> String {
        let bantamctl = bantamctl();
        sh(&format!(
            "cat /var/log/bantam/web1.log; timeout 3 {} console web1 </dev/null 2>&1 || true",
            bantamctl.display()
        ))
    }
}

/// Ends the guest, even if the test fails.
impl Drop for Host {
    fn drop(&mut self) {
        let _ = Command::new(bantamctl()).args(["destroy", "web1"]).output();
    }
}

#[test]
fn one_command_makes_a_guest_of_debian_s_own_disk() {
    needs_kvm();
    announce("a disk image of Debian");
    let host = Host::new();
    let volumes = host.path("volumes");
    host.bantamctl(&format!(
        "pool define vms --type dir --target {}",
        volumes.display()
    ));
    host.bantamctl("pool start vms");
    let said = host.bantamctl(&format!(
        "create --name web1 --hostname web1.example.org --ram 512 --image {} --disk pool=vms,size=2 \
         --network bridge=br0,bridge-address=10.88.0.1/24,address=10.88.0.5/24,guard=on \
         --ssh-key {} --exec-file {}",
        image("debian.raw").display(),
        host.path("key.pub").display(),
        harness::bantam()
    ));
    contains(
        &said,
        &["the kernel in the image of drive root", "web1 is started"],
    );
    host.login();

    // The seed's name and addresses, and the disk's size, in a system without failed units.
    let state = host.guest(
        "hostname; hostname -f; ip -o -4 address show dev eth0; cat /proc/cmdline; df -m --output=size / | tail -n 1; \
         cloud-init status --wait; systemctl is-system-running --wait; systemctl --failed --no-legend",
    );
    println!("{state}");
    let lines: Vec<_> = state.lines().collect();
    assert_eq!(lines[..2], ["web1", "web1.example.org"]);
    contains(&state, &["10.88.0.5/24", "root=UUID=", "\nrunning\n"]);

    // It keeps data, and changes its boot configuration with its own tools.
    host.guest("echo kept | dd of=data conv=fsync status=none");
    host.guest(
        "echo 'GRUB_CMDLINE_LINUX_DEFAULT=\"quiet its.own=1\"' | sudo tee /etc/default/grub.d/90_own.cfg >/dev/null
         sudo update-grub 2>&1",
    );
    contains(&host.bantamctl("list"), &["web1", "running"]);
    contains(&host.bantamctl("stop web1"), &["web1 is stopped"]);
    contains(&host.bantamctl("list"), &["web1", "stopped"]);

    host.bantamctl("start web1");
    host.login();
    let state = host.guest(
        "cat data /proc/cmdline; hostname; sudo journalctl -b -1 -o cat | grep -e '^Power key' -e '^Reached target power'",
    );
    println!("{state}");
    contains(
        &state,
        &[
            "kept\n",
            " its.own=1",
            "\nweb1\n",
            "Power key pressed",
            "Reached target poweroff.target",
        ],
    );
    host.bantamctl("stop web1");
    host.bantamctl("undefine web1 --remove-all-storage");
    assert_eq!(fs::read_dir(&volumes).unwrap().count(), 0);
}
