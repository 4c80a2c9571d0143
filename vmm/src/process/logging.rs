//! Messages to the operator.
//!
//! A person who starts a guest on a terminal gets them on standard error, in plain words, from warnings up:
//! the guest's console has standard output. Where an API is served, and in a log file, they have the
//! form that the compatible monitor's clients know, from information up, and go to standard output if
//! there is no file.

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

/// Messages printed in one [`WINDOW`]: a guest that breaks its rings in a loop cannot fill the
/// operator's disk.
const BURST: u32 = 50;
/// Time in which [`BURST`] messages are printed.
const WINDOW: Duration = Duration::from_secs(1);

/// Whose messages a guest can cause as often as it likes.
const GUEST_MODULES: [&str; 3] = ["devices", "vmm::vcpu", "vmm::mmds"];

metric_set! {
    /// The writing of messages and metrics itself.
    pub struct LoggerMetrics = "logger" {
        /// Lines of metrics that were not written.
        missed_metrics_count: Counter,
        /// Failures to write one.
        metrics_fails: Counter,
        /// Messages that were not written.
        missed_log_count: Counter,
        /// Messages left out because there were too many.
        rate_limited_log_count: Counter,
    }
}

/// A log file that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the log file {}", path.display())]
pub struct LogFileError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// How messages look.
struct Form {
    /// The form that clients know; plain words if not.
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

/// Messages of the guest `id` from now on, in the `compatible` form or in plain words.
pub fn init(id: &str, compatible: bool, counts: Arc<LoggerMetrics>) {
    let mut form = LOGGER.form.write().unwrap_or_else(PoisonError::into_inner);
    id.clone_into(&mut form.id);
    form.compatible = compatible;
    // Both fail only if they were set before, and then messages have a place.
    let _ = LOGGER.counts.set(counts);
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(match compatible {
            true => LevelFilter::Info,
            false => LevelFilter::Warn,
        });
    }
}

/// Changes what `config` says.
///
/// # Errors
/// The file cannot be opened; all is as before then.
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

/// Prints `error` with all its causes, once, and logs it if there is a log file.
pub fn print_error(error: &dyn Error) {
    let text = chain(error);
    print(&format!("bantam: error: {text}\n"));
    let form = LOGGER.form.read().unwrap_or_else(PoisonError::into_inner);
    if form.compatible {
        drop(form);
        log::error!("{text}");
    }
}

/// The log file's descriptor, if there is one and nobody changes it just now. Async-signal-safe: a lock that is
/// taken is not waited for.
pub(crate) fn file_for_signals() -> Option<RawFd> {
    let form = LOGGER.form.try_read().ok()?;
    form.file.as_ref().map(|file| file.as_raw_fd())
}

impl Logger {
    /// Whether to print, and how many messages were left out before.
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
            // The terminal is raw, so that a line feed alone does not return.
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

    /// One write, so that lines of several threads stay whole.
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
        // The queue library logs each mistake of a guest as an error; devices tell of them once.
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
            let before = format!("{suppressed} messages left out");
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
