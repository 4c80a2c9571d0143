//! The progress of a long operation, shown on a terminal only, and only after a second.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Time before the first line.
const QUIET: Duration = Duration::from_secs(1);
/// Time between two lines.
const EVERY: Duration = Duration::from_millis(200);

/// A long operation.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    /// Bytes of the whole operation.
    total: u64,
    done: u64,
    started: Instant,
    told: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Starts an operation.
    pub fn new() -> Self {
        Self {
            what: "",
            total: 0,
            done: 0,
            started: Instant::now(),
            told: None,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Starts the step `what`, which has `total` bytes.
    pub fn begin(&mut self, what: &'static str, total: u64) {
        (self.what, self.total, self.done) = (what, total, 0);
    }

    /// Adds `bytes` that are done.
    pub fn add(&mut self, bytes: u64) {
        self.done += bytes;
        let due = match self.told {
            None => self.started.elapsed() >= QUIET,
            Some(told) => told.elapsed() >= EVERY,
        };
        if self.terminal && due {
            self.told = Some(Instant::now());
            let line = line(self.what, self.done, self.total);
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.told.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

fn line(what: &str, done: u64, total: u64) -> String {
    let percent = done.min(total).saturating_mul(100).checked_div(total);
    let percent = percent.unwrap_or(100);
    format!("{what}: {percent:3} % of {} MiB", total >> 20)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_line_shows_the_progress() {
        let half = super::line("read", 5 << 20, 10 << 20);
        assert_eq!(half, "read:  50 % of 10 MiB");
        assert_eq!(super::line("read", 0, 0), "read: 100 % of 0 MiB");
    }
}
