//! The boot timer: a page to which the guest's init writes a byte, and the timeline that it prints.

use crate::process::messages;
use devices::bus::BusDevice;
use std::time::{Duration, Instant};

/// The byte that the guest writes.
const BOOTED: u8 = 123;

/// The steps of a boot with their times.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    /// Time that the jailer worked before, if there was one.
    pub jailer: Option<Duration>,
    /// Start of the process.
    pub exec: Instant,
    /// Creation of the VM.
    pub vm_created: Instant,
    /// Entry of the first vCPU at the kernel's first instruction.
    pub entered: Instant,
}

/// The page. A byte of 123 at its start prints the timeline.
pub struct BootTimer {
    timeline: Timeline,
    done: bool,
}

impl BootTimer {
    /// Creates a timer that prints `timeline` when the guest has booted.
    pub fn new(timeline: Timeline) -> Self {
        Self {
            timeline,
            done: false,
        }
    }

    fn line(&self, now: Instant) -> String {
        let since = |then: Instant| ms(then.saturating_duration_since(self.timeline.exec));
        let jailer = self.timeline.jailer;
        let jailer = jailer.map_or_else(String::new, |time| format!("jailer {}, ", ms(time)));
        format!(
            "boot timeline: {jailer}exec 0.0 ms, VM created {}, kernel entered {}, init {}",
            since(self.timeline.vm_created),
            since(self.timeline.entered),
            since(now),
        )
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

impl BusDevice for BootTimer {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        // The operator asked for the timeline, so the log level does not apply.
        if (offset, data) == (0, &[BOOTED]) && !self.done {
            self.done = true;
            messages::print(&format!("bantam: {}\r\n", self.line(Instant::now())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_timeline_counts_from_exec() {
        let exec = Instant::now();
        let after = |ms| exec + Duration::from_millis(ms);
        let mut timer = BootTimer::new(Timeline {
            jailer: None,
            exec,
            vm_created: after(2),
            entered: after(5),
        });
        assert_eq!(
            timer.line(after(1200)),
            "boot timeline: exec 0.0 ms, VM created 2.0 ms, kernel entered 5.0 ms, init 1200.0 ms"
        );
        timer.timeline.jailer = Some(Duration::from_millis(7));
        assert!(
            timer
                .line(after(9))
                .starts_with("boot timeline: jailer 7.0 ms, exec 0.0 ms,")
        );
    }
}
