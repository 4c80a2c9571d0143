//! Messages to the operator, on standard error: the guest's console has standard output.

use log::{Level, LevelFilter, Log, Metadata, Record};
use std::error::Error;
use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Messages printed in one [`WINDOW`]: a guest that breaks its rings in a loop cannot fill the
/// operator's disk.
const BURST: u32 = 50;
/// Time in which [`BURST`] messages are printed.
const WINDOW: Duration = Duration::from_secs(1);

struct Stderr {
    window: Mutex<Option<Window>>,
}

struct Window {
    start: Instant,
    printed: u32,
    suppressed: u32,
}

static LOGGER: Stderr = Stderr {
    window: Mutex::new(None),
};

/// Prints messages of `level` and above from now on.
pub fn init(level: LevelFilter) {
    // It fails only if a logger is set, and then messages have a place.
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(level);
    }
}

/// Prints `error` with all its causes, once.
pub fn print_error(error: &dyn Error) {
    print(&format!("bantam: error: {}\n", chain(error)));
}

/// Writes `text` to standard error, whatever the level. With nobody there to read it (a closed pipe,
/// a full disk) it is lost: `eprint!` would panic, and end a guest that is well.
pub fn print(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

/// `error` and its causes in one line.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !text.ends_with(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

impl Stderr {
    /// Whether to print, and how many messages were left out before.
    fn admit(&self) -> Option<u32> {
        let mut window = devices::lock(&self.window);
        let now = Instant::now();
        match window.as_mut() {
            Some(w) if now.duration_since(w.start) < WINDOW && w.printed >= BURST => {
                w.suppressed += 1;
                None
            }
            Some(w) if now.duration_since(w.start) < WINDOW => {
                w.printed += 1;
                Some(0)
            }
            other => {
                let suppressed = other.map_or(0, |w| w.suppressed);
                *window = Some(Window {
                    start: now,
                    printed: 1,
                    suppressed: 0,
                });
                Some(suppressed)
            }
        }
    }
}

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The queue library logs each mistake of a guest as an error; devices tell of them once.
        metadata.level() <= log::max_level() && !metadata.target().starts_with("virtio_queue")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Some(suppressed) = self.admit() else {
            return;
        };
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        let left_out = match suppressed {
            0 => String::new(),
            n => format!("bantam: warning: {n} messages left out\r\n"),
        };
        // The terminal is raw, so that a line feed alone does not return. One write, so that
        // lines of several threads stay whole.
        print(&format!("{left_out}bantam: {level}: {}\r\n", record.args()));
    }

    fn flush(&self) {}
}
