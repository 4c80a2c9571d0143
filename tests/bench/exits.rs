//! Number of returns from KVM_RUN during a boot, to user space and to reset or power-off.
//!
//! strace counts them on the host with real KVM that kvm-host.sh provides. Counts do not drift there, as times do. Each
//! thread is traced to a file of its own, so that no call is split into two lines.

use crate::monitors::{Guest, Monitor};
use crate::process::Running;
use crate::report::{Aim, Entry, Table};
use crate::{Failure, image, project};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Time limit for a traced boot on an emulated host, also of the monitor with the most exits.
const PATIENCE: Duration = Duration::from_secs(400);
const AIM: f64 = 210.0;
/// First output of the guest's init.
const INIT: &str = "bantam-guest: init after";
/// `reboot -f` and `poweroff -f`, encoded for `bantam.script=`.
const REBOOT: &str = "cmVib290IC1m";
const POWER_OFF: &str = "cG93ZXJvZmYgLWY=";

/// Counts on the KVM host, which may be this machine.
pub fn measure(monitors: &[Monitor], boots: usize, out: &Path) -> Result<Table, Failure> {
    let dir = out.join("kvm-host");
    let mut entries: Vec<Entry> = monitors.iter().map(|m| Entry::new(m.name)).collect();
    let seconds = 60 + boots * monitors.len() * 200;
    let mut host = Command::new(project().join("tests/harness/kvm-host.sh"));
    host.args(["--timeout", &seconds.to_string(), "--dir"])
        .arg(&dir)
        .arg("--")
        .arg(std::env::current_exe()?)
        .args(["--count-exits-here", "--boots", &boots.to_string()]);
    for monitor in monitors {
        host.env(monitor.variable(), &monitor.program);
    }
    let status = host.stdin(Stdio::null()).status()?;
    let counted = fs::read_to_string(dir.join(RESULTS)).unwrap_or_default();
    for entry in &mut entries {
        for line in counted.lines() {
            match line.split_once('\t') {
                Some((name, count)) if name == entry.name => match count.parse() {
                    Ok(count) => entry.add(count),
                    Err(_) => entry.leave_out(count),
                },
                _ => {}
            }
        }
        if entry.is_empty() && !entry.is_out() {
            entry.leave_out(&format!("the KVM host ended first, {status}"));
        }
    }
    Ok(Table {
        title: "Returns from KVM_RUN over a boot".into(),
        unit: "returns",
        note: "Debian's cloud kernel, busybox initrd, `console=ttyS0 quiet`, no drive and no interface, to user \
               space and reset (Cloud Hypervisor, which boots again at a reset: power-off); 1 vCPU, \
               256 MiB; counted by strace on the KVM host; Firecracker has the vmlinux, the others \
               the bzImage of the same kernel"
            .into(),
        entries,
        cases: false,
        aims: vec![Aim::AtMost(AIM)],
    })
}

/// File in the KVM host's directory. A line has a name, a tab, and a count or a reason.
const RESULTS: &str = "exits";

/// Counts on this machine.
pub fn count_here(monitors: &[Monitor], boots: usize) -> Result<(), Failure> {
    let dir = std::env::var_os("BANTAM_KVM_DIR").ok_or("this runs under kvm-host.sh only")?;
    let dir = PathBuf::from(dir);
    let mut results = String::new();
    for _ in 0..boots {
        for monitor in monitors {
            fs::write(dir.join("current"), monitor.name)?;
            let result = match count(monitor, &dir) {
                Ok(count) => count.to_string(),
                Err(failure) => failure.to_string().replace(['\n', '\t'], " "),
            };
            println!("{}: {result}", monitor.name);
            results += &format!("{}\t{result}\n", monitor.name);
            // Written after each monitor, in case the host fails before the next.
            fs::write(dir.join(RESULTS), &results)?;
        }
    }
    Ok(())
}

fn count(monitor: &Monitor, dir: &Path) -> Result<usize, Failure> {
    let script = match monitor.goes_on_at_reset() {
        true => POWER_OFF,
        false => REBOOT,
    };
    let kernel = match monitor.boots_bzimage() {
        true => "vmlinuz-cloud",
        false => "vmlinux-cloud",
    };
    let guest = Guest {
        kernel: image(kernel)?,
        initrd: Some(image("initrd-cloud.img")?),
        args: format!("console=ttyS0 quiet bantam.script={script}"),
        mem_mib: 256,
    };
    // In memory, not on a share of another machine.
    let traces = tempfile::tempdir()?;
    let prefix = traces.path().join("trace");
    let untraced = monitor.command(&guest, traces.path())?;
    let mut command = Command::new("strace");
    command
        .args(["-f", "-ff", "--seccomp-bpf", "-e", "trace=ioctl", "-o"])
        .arg(&prefix)
        .arg(untraced.get_program())
        .args(untraced.get_args());
    let console = dir.join(monitor.file_stem()).with_extension("console");
    let output = File::create(&console)?.into();
    let (mut running, _) = Running::start(&mut command, output, traces.path(), PATIENCE)?;
    let status = running.wait()?;
    let said = fs::read(&console)?;
    if !String::from_utf8_lossy(&said).contains(INIT) {
        return Err(running.explain(&format!("no boot to user space, {status}")));
    }
    let mut returns = 0;
    for trace in fs::read_dir(traces.path())? {
        let path = trace?.path();
        if path.file_stem() == prefix.file_name() {
            let text = fs::read(&path)?;
            let text = String::from_utf8_lossy(&text);
            returns += text.lines().filter(|line| is_return(line)).count();
        }
    }
    Ok(returns)
}

/// Returns true if a line of strace's output is a KVM_RUN that returned, including EINTR.
fn is_return(line: &str) -> bool {
    let result = line.rsplit_once(" = ").map(|(_, result)| result);
    line.contains("KVM_RUN") && result.is_some_and(|result| !result.starts_with('?'))
}
