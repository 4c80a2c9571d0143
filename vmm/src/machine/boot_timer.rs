//! The boot timer: a page to which the guest's init writes a byte, and the timeline this gives.

use crate::process::messages;
use devices::bus::BusDevice;
use std::time::{Duration, Instant};

/// What the guest writes.
const BOOTED: u8 = 123;

/// When what happened on the way to a running guest.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    /// How long the jailer worked before, if there was one.
    pub jailer: Option<Duration>,
    /// The process was started.
    pub exec: Instant,
    /// KVM made the VM.
    pub vm_created: Instant,
    /// The first vCPU is about to run the kernel's first instruction.
    pub entered: Instant,
}

/// The page: a byte of 123 written to its start prints the timeline.
pub struct BootTimer {
    timeline: Timeline,
    done: bool,
}

impl BootTimer {
    /// Prints `timeline` when the guest says that it is up.
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
        // The operator asked for it, so it is printed whatever the log level.
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
