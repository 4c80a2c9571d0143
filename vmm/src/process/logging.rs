//! Messages to the operator.
//!
//! Without an API and a log file, warnings and errors go to standard error in plain words, because the guest's console has
//! standard output. With an API or a log file, messages have Firecracker's format, begin at the level info, and go to the
//! log file or else to standard output.

use super::messages::{chain, print};
use super::output_file::{open_nonblocking, write_unless_full};
use devices::metric_set;
use devices::util::metrics::Counter;
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::error::Error;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsRawFd as _, RawFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

/// Limit of messages in one [`WINDOW`]. A guest that breaks its rings in a loop must not fill the operator's disk.
const BURST: u32 = 50;
/// Time in which at most [`BURST`] messages are printed.
const WINDOW: Duration = Duration::from_secs(1);

/// Modules whose messages a guest can cause as often as it likes.
const GUEST_MODULES: [&str; 3] = ["devices", "vmm::vcpu", "vmm::mmds"];

metric_set! {
    /// Metrics of messages and of metrics themselves.
    pub struct LoggerMetrics = "logger" {
        /// Lines of metrics that were not written.
        missed_metrics_count: Counter,
        /// Failures to write a line of metrics.
        metrics_fails: Counter,
        /// Messages that could not be written.
        missed_log_count: Counter,
        /// Messages suppressed by the rate limit.
        rate_limited_log_count: Counter,
    }
}

/// A log file that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log file {}", path.display())]
pub struct LogFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Format and destination of messages.
struct Form {
    /// Firecracker's format instead of plain words.
    compatible: bool,
    id: String,
    file: Option<File>,
    show_level: bool,
    show_origin: bool,
    module: Option<String>,
}

struct Logger {
    form: RwLock<Form>,
    window: Mutex<Option<Window>>,
    counts: OnceLock<Arc<LoggerMetrics>>,
}

struct Window {
    start: Instant,
    printed: u32,
    suppressed: u32,
}

static LOGGER: Logger = Logger {
    form: RwLock::new(Form {
        compatible: false,
        id: String::new(),
        file: None,
        show_level: false,
        show_origin: false,
        module: None,
    }),
    window: Mutex::new(None),
    counts: OnceLock::new(),
};

/// Installs the logger for the guest `id`, in Firecracker's format if `compatible`.
pub fn init(id: &str, compatible: bool, counts: Arc<LoggerMetrics>) {
    let mut form = LOGGER.form.write().unwrap_or_else(PoisonError::into_inner);
    id.clone_into(&mut form.id);
    form.compatible = compatible;
    // Both calls fail only if the logger is installed already.
    let _ = LOGGER.counts.set(counts);
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(match compatible {
            true => LevelFilter::Info,
            false => LevelFilter::Warn,
        });
    }
}

/// Applies the keys that `config` sets.
///
/// # Errors
/// The log file cannot be opened; the logger is unchanged.
pub fn configure(config: &resources::Logger) -> Result<(), LogFileError> {
    let open = |path: &PathBuf| {
        open_nonblocking(path).map_err(|source| LogFileError {
            path: path.clone(),
            source,
        })
    };
    let file = config.log_path.as_ref().map(open).transpose()?;
    let mut form = LOGGER.form.write().unwrap_or_else(PoisonError::into_inner);
    if file.is_some() {
        (form.file, form.compatible) = (file, true);
    }
    form.show_level = config.show_level.unwrap_or(form.show_level);
    form.show_origin = config.show_log_origin.unwrap_or(form.show_origin);
    if config.module.is_some() {
        form.module.clone_from(&config.module);
    }
    log::set_max_level(match config.level {
        Some(resources::Level::Off) => LevelFilter::Off,
        Some(resources::Level::Error) => LevelFilter::Error,
        Some(resources::Level::Warn) => LevelFilter::Warn,
        Some(resources::Level::Info) => LevelFilter::Info,
        Some(resources::Level::Debug) => LevelFilter::Debug,
        Some(resources::Level::Trace) => LevelFilter::Trace,
        None if form.compatible => LevelFilter::Info,
        None => LevelFilter::Warn,
    });
    Ok(())
}

/// Prints `error` with its causes to standard error, and logs it if there is a log file.
pub fn print_error(error: &dyn Error) {
    let text = chain(error);
    print(&format!("bantam: error: {text}\n"));
    let form = LOGGER.form.read().unwrap_or_else(PoisonError::into_inner);
    if form.compatible {
        drop(form);
        log::error!("{text}");
    }
}

/// Returns the descriptor of the log file, if there is one. Async-signal-safe: returns `None` instead of waiting for a
/// lock.
pub(crate) fn file_for_signals() -> Option<RawFd> {
    let form = LOGGER.form.try_read().ok()?;
    form.file.as_ref().map(|file| file.as_raw_fd())
}

impl Logger {
    /// Returns `None` if the message must be suppressed, or else how many messages were suppressed before it.
    fn admit(&self) -> Option<u32> {
        let mut window = devices::lock(&self.window);
        let now = Instant::now();
        match window.as_mut() {
            Some(w) if now.duration_since(w.start) < WINDOW && w.printed >= BURST => {
                w.suppressed += 1;
                if let Some(counts) = self.counts.get() {
                    counts.rate_limited_log_count.increment();
                }
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

impl Form {
    fn line(&self, record: &Record<'_>, text: &dyn std::fmt::Display) -> String {
        if !self.compatible {
            let level = match record.level() {
                Level::Error => "error",
                Level::Warn => "warning",
                Level::Info => "info",
                Level::Debug => "debug",
                Level::Trace => "trace",
            };
            // The terminal is raw: a line feed alone does not return to the start of the line.
            return format!("bantam: {level}: {text}\r\n");
        }
        let time = humantime::format_rfc3339_nanos(SystemTime::now()).to_string();
        let thread = std::thread::current();
        let level = match self.show_level {
            true => format!(":{}", record.level()),
            false => String::new(),
        };
        let origin = match (self.show_origin, record.file(), record.line()) {
            (true, Some(file), Some(line)) => format!(":{file}:{line}"),
            _ => String::new(),
        };
        format!(
            "{} [{}:{}{level}{origin}] {text}\n",
            time.trim_end_matches('Z'),
            self.id,
            thread.name().unwrap_or("-"),
        )
    }

    /// Writes `line` in one call, so that lines of several threads do not mix.
    fn write(&self, line: &str) -> io::Result<()> {
        match &self.file {
            Some(file) => (&*file).write_all(line.as_bytes()),
            None if self.compatible => write_unless_full(io::stdout(), line),
            None => write_unless_full(io::stderr(), line),
        }
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The queue library logs each of a guest's mistakes as an error. The devices log them once.
        metadata.level() <= log::max_level() && !metadata.target().starts_with("virtio_queue")
    }

    fn log(&self, record: &Record<'_>) {
        let form = self.form.read().unwrap_or_else(PoisonError::into_inner);
        let module = record.module_path().unwrap_or_default();
        let chosen = form.module.as_ref().is_none_or(|m| module.starts_with(m));
        if !self.enabled(record.metadata()) || !chosen {
            return;
        }
        let of_guest = GUEST_MODULES.iter().any(|start| module.starts_with(start));
        let suppressed = match of_guest.then(|| self.admit()) {
            None => 0,
            Some(Some(suppressed)) => suppressed,
            Some(None) => return,
        };
        let mut line = form.line(record, record.args());
        if suppressed > 0 {
            let before = format!("{suppressed} messages suppressed");
            line = format!("{}{line}", form.line(record, &before));
        }
        if form.write(&line).is_err()
            && let Some(counts) = self.counts.get()
        {
            counts.missed_log_count.increment();
        }
    }

    fn flush(&self) {}
}
