//! How far something long has come, on a terminal; others are not told. What is done within a second is not worth a word.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// What is done before this says nothing.
const QUIET: Duration = Duration::from_secs(1);
/// How often it is told.
const EVERY: Duration = Duration::from_millis(200);

/// Something long.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    /// Bytes in all.
    total: u64,
    done: u64,
    started: Instant,
    told: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Nothing is done yet.
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

    /// From now on it is `what`, of `total` bytes.
    pub fn begin(&mut self, what: &'static str, total: u64) {
        (self.what, self.total, self.done) = (what, total, 0);
    }

    /// `bytes` more are done.
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
    fn the_line_says_how_far_it_is() {
        let half = super::line("read", 5 << 20, 10 << 20);
        assert_eq!(half, "read:  50 % of 10 MiB");
        assert_eq!(super::line("read", 0, 0), "read: 100 % of 0 MiB");
    }
}
