//! The jailer's share of a start: time and system calls from its exec to the exec of the monitor.
//!
//! Runs as root, in network and mount namespaces of this thread.

use crate::Failure;
use crate::monitors::{Kind, Monitor};
use crate::process::Running;
use crate::report::{Aim, Entry, Table};
use nix::sched::{CloneFlags, unshare};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
/// Target in milliseconds.
const TIME_AIM: f64 = 5.0;
/// Target in system calls.
const CALLS_AIM: f64 = 500.0;
const UID: u32 = 64_190;

/// A way to start: its name and its flags.
struct Way {
    name: &'static str,
    flags: &'static [&'static str],
    /// True if the jailer prepares an image, a tap and a bridge, of which only the tap is missing.
    guest: bool,
}

const WAYS: [Way; 5] = [
    Way {
        name: "disk and network",
        flags: &[],
        guest: true,
    },
    Way {
        name: "bare jail",
        flags: &[],
        guest: false,
    },
    Way {
        name: "namespaces",
        flags: &["--new-pid-ns", "--new-user-ns"],
        guest: false,
    },
    Way {
        name: "control group",
        flags: &[
            "--new-pid-ns",
            "--cgroup",
            "cgroup.max.depth=7",
            "--cgroup-version",
            "2",
        ],
        guest: false,
    },
    Way {
        name: "uid allotted",
        flags: &["--uid", "auto"],
        guest: false,
    },
];

/// Measures Bantam.
pub fn measure(monitors: &[Monitor], rounds: usize, out: &Path) -> Vec<Table> {
    let bantam = monitors.iter().find(|m| m.kind == Kind::Bantam);
    let mut entries = WAYS.map(|way| (Entry::new(way.name), Entry::new(way.name)));
    // The namespaces end with the thread.
    let measured = std::thread::scope(|scope| {
        let thread = scope.spawn(|| match bantam {
            Some(bantam) => in_own_host(bantam, out, rounds, &mut entries),
            None => Err("Bantam is not here".to_owned()),
        });
        thread.join().unwrap_or(Err("it panicked".to_owned()))
    });
    if let Err(failure) = measured {
        for (time, calls) in &mut entries {
            time.leave_out(&failure);
            calls.leave_out(&failure);
        }
    }
    let (times, calls): (Vec<_>, Vec<_>) = entries.into_iter().unzip();
    vec![
        Table {
            title: "What the jailer adds to a start".into(),
            unit: "ms",
            note: format!(
                "fork and exec of the jailer until the monitor that it becomes writes its version, less the \
                 same without the jailer, {rounds} interleaved rounds; the image is there already"
            ),
            entries: times,
            cases: true,
            aims: vec![Aim::AtMost(TIME_AIM)],
        },
        Table {
            title: "System calls of the jailer".into(),
            unit: "calls",
            note: "of all its processes and threads, by strace, from its exec to the monitor's"
                .into(),
            entries: calls,
            cases: true,
            aims: vec![Aim::AtMost(CALLS_AIM)],
        },
    ]
}

fn in_own_host(
    bantam: &Monitor,
    out: &Path,
    rounds: usize,
    entries: &mut [(Entry, Entry)],
) -> Result<(), String> {
    let host = Host::new(bantam, out).map_err(|failure| failure.to_string())?;
    host.fill(entries, rounds);
    Ok(())
}

/// The host of the measured jailers.
struct Host {
    jailer: PathBuf,
    bantam: PathBuf,
    dir: PathBuf,
}

impl Host {
    fn new(bantam: &Monitor, out: &Path) -> Result<Self, Failure> {
        let jailer = bantam.program.with_file_name("jailer");
        if !jailer.is_file() {
            return Err(format!("{} is missing", jailer.display()).into());
        }
        let own = CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS;
        unshare(own).map_err(|e| format!("namespaces: {e}; run as root"))?;
        let dir = out.join("jails");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let image = dir.join("disk.img");
        fs::File::create(&image)?.set_len(1 << 30)?;
        std::os::unix::fs::chown(&image, Some(UID), Some(UID))?;
        fs::write(dir.join("kernel"), "kernel")?;
        let config = serde_json::json!({
            "boot-source": {"kernel_image_path": dir.join("kernel")},
            "drives": [{"drive_id": "root", "is_root_device": true, "path_on_host": image}],
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
            "network-interfaces": [{"iface_id": "eth0", "host_dev_name": "tap0", "bridge": "br0"}],
        });
        fs::write(dir.join("vm.json"), config.to_string())?;
        let mut prepared = Command::new("sh");
        prepared.arg("-ec").arg(
            "mount --make-rprivate /; mkdir -p /run/bantam; mount -t tmpfs -o mode=700 tmpfs /run/bantam; \
             ip link add br0 type bridge; ip link set br0 up",
        );
        if !prepared.status()?.success() {
            return Err("cannot prepare a network".into());
        }
        Ok(Self {
            jailer,
            bantam: bantam.program.clone(),
            dir,
        })
    }

    /// Returns the arguments that start the monitor by `way`, which prints its version and ends.
    fn arguments(&self, way: &Way) -> Vec<String> {
        let mut words = vec!["--id".to_owned(), way.name.replace(' ', "-")];
        words.extend(["--exec-file".into(), self.bantam.display().to_string()]);
        if !way.flags.contains(&"--uid") {
            for flag in ["--uid", "--gid"] {
                words.extend([flag.into(), UID.to_string()]);
            }
        }
        words.extend(["--chroot-base-dir".into(), self.dir.display().to_string()]);
        if way.guest {
            let config = self.dir.join("vm.json");
            words.extend(["--config-file".into(), config.display().to_string()]);
        }
        words.extend(way.flags.iter().map(|flag| (*flag).to_owned()));
        words.extend(["--", "--version"].map(str::to_owned));
        words
    }

    fn fill(&self, entries: &mut [(Entry, Entry)], rounds: usize) {
        for (way, (time, calls)) in WAYS.iter().zip(entries.iter_mut()) {
            match self.calls(way) {
                Ok(number) => calls.add(number),
                Err(failure) => {
                    calls.leave_out(&failure.to_string());
                    time.leave_out(&failure.to_string());
                }
            }
        }
        for round in 0..=rounds {
            for (way, (entry, _)) in WAYS.iter().zip(entries.iter_mut()) {
                if entry.is_out() {
                    continue;
                }
                match self.added(way) {
                    // The first round fills the page cache.
                    Ok(_) if round == 0 => {}
                    Ok(added) => entry.add(added),
                    Err(failure) => entry.leave_out(&failure.to_string()),
                }
            }
        }
    }

    /// Returns the milliseconds that the jailer adds.
    fn added(&self, way: &Way) -> Result<f64, Failure> {
        let alone = self.speaks(Command::new(&self.bantam).arg("--version"))?;
        let jailed = self.speaks(Command::new(&self.jailer).args(self.arguments(way)))?;
        Ok((jailed.as_secs_f64() - alone.as_secs_f64()) * 1e3)
    }

    fn speaks(&self, command: &mut Command) -> Result<Duration, Failure> {
        let (mut running, started) = Running::start(command, Stdio::piped(), &self.dir, PATIENCE)?;
        let spoke = running.wait_for_word()?;
        running.wait()?;
        Ok(spoke - started)
    }

    fn calls(&self, way: &Way) -> Result<f64, Failure> {
        let trace = self.dir.join("trace");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&trace);
        command.arg(&self.jailer).args(self.arguments(way));
        let (mut running, _) = Running::start(&mut command, Stdio::null(), &self.dir, PATIENCE)?;
        if !running.wait()?.success() {
            return Err(running.explain("it failed under strace"));
        }
        let trace = fs::read_to_string(&trace)?;
        // Calls of other threads that are unfinished at the exec do not return.
        let calls = trace
            .lines()
            .filter(|line| line.contains('(') && !line.contains("resumed>"));
        let name = self.bantam.file_name().unwrap_or_default();
        let monitor = format!(" execve(\"/{}\"", name.display());
        let own = calls.clone().take_while(|line| !line.contains(&monitor));
        if calls.count() == own.clone().count() {
            return Err("strace did not see the monitor".into());
        }
        let number = u32::try_from(own.count())?;
        Ok(f64::from(number))
    }
}
