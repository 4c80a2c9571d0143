//! Memory and size of a monitor: resident memory without its guest's, and the size of its binary.

use crate::monitors::Monitor;
use crate::payload::number;
use crate::process::Running;
use crate::report::{Aim, Entry, Table};
use crate::{Failure, startup};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
/// Time for a monitor's threads to settle once its guest runs.
const REST: Duration = Duration::from_millis(300);
/// Size in KiB from which a mapping counts as the guest's memory, which has 128 MiB.
const GUEST_MAPPING_KIB: u64 = 100 << 10;
const ROUNDS: usize = 5;
const RESIDENT_AIM_MIB: f64 = 2.5;
const BINARY_AIM_MB: f64 = 4.0;

/// Measures the peak resident memory of each monitor without its guest's pages.
pub fn resident(monitors: &[Monitor], out: &Path) -> Result<Table, Failure> {
    let guest = startup::small_guest(out)?;
    let mut entries: Vec<Entry> = monitors.iter().map(|m| Entry::new(m.name)).collect();
    for _ in 0..ROUNDS {
        for (monitor, entry) in monitors.iter().zip(&mut entries) {
            let mut command = monitor.command(&guest, out)?;
            let (mut running, _) = Running::start(&mut command, Stdio::piped(), out, PATIENCE)?;
            match running.wait_for_mark() {
                Ok(_) if entry.is_out() => {}
                Ok(_) => {
                    std::thread::sleep(REST);
                    entry.add(peak_mib(running.id())?);
                }
                Err(failure) => entry.leave_out(&failure.to_string()),
            }
        }
    }
    Ok(Table {
        title: "Peak resident memory of the monitor, beyond the guest's".into(),
        unit: "MiB",
        note: "VmHWM less the resident pages of the guest's mapping, with the kernel of 10 bytes; \
               1 vCPU, 128 MiB"
            .into(),
        entries,
        cases: false,
        aims: vec![Aim::AtMost(RESIDENT_AIM_MIB)],
    })
}

fn peak_mib(process: u32) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let peak = kib_of(&status, "VmHWM").ok_or("there is no VmHWM")?;
    let maps = fs::read_to_string(format!("/proc/{process}/smaps"))?;
    let (mut size, mut guest) = (0, 0);
    for line in maps.lines() {
        size = kib_of(line, "Size").unwrap_or(size);
        if size >= GUEST_MAPPING_KIB {
            guest += kib_of(line, "Rss").unwrap_or(0);
        }
    }
    Ok(f64::from(u32::try_from(peak.saturating_sub(guest))?) / 1024.0)
}

/// Returns the value of the first line `name:   1234 kB`.
pub fn kib_of(text: &str, name: &str) -> Option<u64> {
    let mut values = text.lines().filter_map(|line| line.split_once(':'));
    let (_, value) = values.find(|(key, _)| *key == name)?;
    value.split_whitespace().next()?.parse().ok()
}

/// Measures the sizes of the stripped binaries.
pub fn binaries(monitors: &[Monitor], out: &Path) -> Result<Table, Failure> {
    let mut entries = Vec::new();
    for monitor in monitors {
        let stripped = out.join("stripped");
        let status = Command::new("strip")
            .arg("-o")
            .args([&stripped, &monitor.program])
            .status()?;
        let mut entry = Entry::new(monitor.name);
        if status.success() {
            let bytes = fs::metadata(&stripped)?.len();
            entry.add(f64::from(u32::try_from(bytes)?) / 1e6);
            entry.remark = match is_static(&stripped)? {
                true => "static".into(),
                false => "and its shared libraries".into(),
            };
        } else {
            entry.leave_out("strip failed");
        }
        fs::remove_file(&stripped).or_else(|e| match status.success() {
            true => Err(e),
            false => Ok(()),
        })?;
        entries.push(entry);
    }
    Ok(Table {
        title: "Size of the binary, stripped".into(),
        unit: "MB",
        note: "the one file; firmware and shared libraries come on top where there are any".into(),
        entries,
        cases: false,
        aims: vec![Aim::AtMost(BINARY_AIM_MB)],
    })
}

/// Returns true if an ELF file needs no dynamic loader.
fn is_static(path: &Path) -> Result<bool, Failure> {
    const PT_INTERP: u64 = 3;
    let elf = fs::read(path)?;
    let (table, len) = (number::<8>(&elf, 32)?, number::<2>(&elf, 54)?);
    for index in 0..number::<2>(&elf, 56)? {
        if number::<4>(&elf, usize::try_from(table + index * len)?)? == PT_INTERP {
            return Ok(false);
        }
    }
    Ok(true)
}
