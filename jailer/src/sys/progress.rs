//! Progress of long work: a bar on a terminal, else a line every ten seconds. Work of less than a second prints
//! nothing.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Time before anything is printed.
const QUIET: Duration = Duration::from_secs(1);
/// Time between two updates on a terminal, and in a file.
const TERMINAL: Duration = Duration::from_millis(200);
const FILE: Duration = Duration::from_secs(10);
/// Width of the bar in characters.
const WIDTH: u64 = 30;

/// Long work.
#[derive(Debug)]
pub struct Progress {
    what: String,
    /// Total in bytes; zero if it is unknown.
    total: u64,
    done: u64,
    started: Instant,
    printed: Option<Instant>,
    terminal: bool,
}

impl Progress {
    /// Begins work named `what`, e.g. "copy web1", of `total` bytes.
    pub fn new(what: impl Into<String>, total: u64) -> Self {
        Self {
            what: what.into(),
            total,
            done: 0,
            started: Instant::now(),
            printed: None,
            terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Reports that `done` bytes are done.
    pub fn reached(&mut self, done: u64) {
        self.done = done;
        let every = if self.terminal { TERMINAL } else { FILE };
        let due = match self.printed {
            None => self.started.elapsed() >= QUIET,
            Some(printed) => printed.elapsed() >= every,
        };
        if !due {
            return;
        }
        self.printed = Some(Instant::now());
        let line = line(&self.what, self.done, self.total, self.started.elapsed());
        let mut out = std::io::stderr().lock();
        let _ = match self.terminal {
            true => write!(out, "\r{line}\x1b[K"),
            false => writeln!(out, "{}: {line}", crate::error::program()),
        };
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.printed.is_some() {
            eprintln!();
        }
    }
}

fn line(what: &str, done: u64, total: u64, elapsed: Duration) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let millis = u64::try_from(elapsed.as_millis())
        .unwrap_or(u64::MAX)
        .max(1);
    let rate = done.saturating_mul(1000) / millis;
    let mut text = format!("{what} ");
    let of_total = |parts: u64| done.min(total).saturating_mul(parts).checked_div(total);
    if let (Some(full), Some(percent)) = (of_total(WIDTH), of_total(100)) {
        text.push('[');
        (0..WIDTH).for_each(|n| text.push(if n < full { '#' } else { '.' }));
        let _ = write!(text, "] {percent:3} %, ");
    }
    let _ = write!(text, "{} MiB, {} MiB/s", mib(done), mib(rate));
    if total > done && rate > 0 {
        let _ = write!(text, ", {} s left", (total - done) / rate);
    }
    text
}

#[cfg(test)]
#[path = "progress_test.rs"]
mod progress_test;
