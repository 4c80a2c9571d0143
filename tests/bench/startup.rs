//! Time from starting the monitor's process to its guest's first instruction.

use crate::monitors::{Guest, Monitor};
use crate::process::Running;
use crate::report::{Aim, Entry, Table};
use crate::{Failure, image, payload};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
/// Target, as a share of the best peer's time.
const AIM: f64 = 0.8;

/// Measures a minimal kernel, and Debian's kernel in both forms.
pub fn measure(monitors: &[Monitor], rounds: usize, out: &Path) -> Result<Vec<Table>, Failure> {
    let small = payload::write_small(out)?;
    let vmlinux = out.join("vmlinux-marked");
    payload::mark_elf(&image("vmlinux-cloud")?, &vmlinux)?;
    let vmlinuz = out.join("vmlinuz-marked");
    payload::mark_bzimage(&image("vmlinuz-cloud")?, &vmlinuz)?;
    let initrd = image("initrd-cloud.img")?;

    let kernels = [
        ("a kernel of 10 bytes", small, None),
        (
            "Debian's vmlinux and an initrd",
            vmlinux,
            Some(initrd.clone()),
        ),
        ("Debian's bzImage and an initrd", vmlinuz, Some(initrd)),
    ];
    let mut tables = Vec::new();
    for (what, kernel, initrd) in kernels {
        let guest = Guest {
            kernel,
            initrd,
            args: "console=ttyS0 quiet".into(),
            mem_mib: 128,
        };
        let entries = interleaved(monitors, rounds, |monitor| once(monitor, &guest, out));
        tables.push(Table {
            title: format!("Start to first guest instruction, {what}"),
            unit: "ms",
            note: format!(
                "fork and exec of the monitor until the byte that the guest's first instructions \
                 write to COM1 is read from a pipe; 1 vCPU, 128 MiB; {rounds} interleaved rounds"
            ),
            entries,
            cases: false,
            aims: vec![Aim::ShareOfBestPeer(AIM)],
        });
    }
    Ok(tables)
}

/// Measures `once` for each monitor in turn, in milliseconds.
pub fn interleaved(
    monitors: &[Monitor],
    rounds: usize,
    once: impl Fn(&Monitor) -> Result<Duration, Failure>,
) -> Vec<Entry> {
    let mut entries: Vec<Entry> = monitors.iter().map(|m| Entry::new(m.name)).collect();
    for round in 0..=rounds {
        let mut order: Vec<_> = monitors.iter().zip(&mut entries).collect();
        // The order rotates, so that no monitor always follows the same one.
        let first = round % order.len().max(1);
        order.rotate_left(first);
        for (monitor, entry) in order {
            if entry.is_out() {
                continue;
            }
            match once(monitor) {
                // The first round fills the page cache.
                Ok(_) if round == 0 => {}
                Ok(time) => entry.add(time.as_secs_f64() * 1e3),
                Err(failure) => entry.leave_out(&failure.to_string()),
            }
        }
    }
    entries
}

fn once(monitor: &Monitor, guest: &Guest, out: &Path) -> Result<Duration, Failure> {
    let mut command = monitor.command(guest, out)?;
    let (mut running, started) = Running::start(&mut command, Stdio::piped(), out, PATIENCE)?;
    let marked = running.wait_for_mark()?;
    Ok(marked - started)
}

/// Returns the guest of one byte of output, which `memory` uses, too.
pub fn small_guest(out: &Path) -> Result<Guest, Failure> {
    Ok(Guest {
        kernel: payload::write_small(out)?,
        initrd: None,
        args: "console=ttyS0 quiet".into(),
        mem_mib: 128,
    })
}
