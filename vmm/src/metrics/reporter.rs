//! Writes the metrics every minute and on request: a line of JSON to a file or FIFO, and a file for Prometheus's node
//! exporter.

use super::prometheus::text;
use super::sets::Metrics;
use super::source::Source;
use crate::event_loop::wake;
use crate::machine::device_factory::empty_metrics;
use crate::process::output_file::open_nonblocking;
use devices::platform::i8042::I8042Metrics;
use devices::platform::serial::SerialMetrics;
use devices::util::metrics::{MetricSet, Value};
use devices::util::timer::{Timer, now};
use devices::virtio::worker::Loop;
use event_manager::{EventOps, Events, MutEventSubscriber};
use serde_json::{Map, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

/// Time between two lines.
const INTERVAL: Duration = Duration::from_secs(60);

/// Returns the sets that each line contains, whatever devices there are.
fn always() -> Vec<Arc<dyn MetricSet>> {
    let mut sets = empty_metrics();
    sets.push(Arc::new(I8042Metrics::default()));
    sets.push(Arc::new(SerialMetrics::default()));
    sets.extend(super::absent::sets());
    sets
}

/// Groups with several devices, each of which has a key of its own, too.
const PER_DEVICE: [&str; 2] = ["block", "net"];

/// Why the metrics file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The file is set already.
    #[error(
        "Cannot initialize the metrics system due to bad user input: Reinitialization of metrics not \
         allowed."
    )]
    Twice,
    /// The file cannot be opened.
    #[error(
        "Cannot initialize the metrics system due to bad user input: {}: {source}", path.display()
    )]
    Open {
        /// The file's path.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// The destination of the metrics.
pub struct Sink {
    file: File,
    prometheus: Option<PathBuf>,
    emit_id: bool,
    properties: Option<BTreeMap<String, String>>,
    /// The part of the last line that a FIFO did not take. It must be written before the next line.
    rest: Vec<u8>,
}

impl Sink {
    /// Opens the files of `config`.
    ///
    /// # Errors
    /// [`SinkError::Open`].
    pub fn open(config: &resources::Metrics) -> Result<Self, SinkError> {
        let path = &config.metrics_path;
        Ok(Self {
            file: open_nonblocking(path).map_err(|source| SinkError::Open {
                path: path.clone(),
                source,
            })?,
            prometheus: config.prometheus_path.clone(),
            emit_id: config.emit_id,
            properties: config.properties.clone(),
            rest: Vec::new(),
        })
    }

    /// Writes as much of the rest as possible. Returns whether all of it is written.
    fn write_rest(&mut self) -> io::Result<bool> {
        if !self.rest.is_empty() {
            let taken = self.write(&self.rest)?;
            self.rest.drain(..taken.min(self.rest.len()));
        }
        Ok(self.rest.is_empty())
    }

    /// Starts `line` and keeps what is not taken of it. Returns whether it was started.
    fn write_line(&mut self, line: &[u8]) -> io::Result<bool> {
        let taken = self.write(line)?;
        if taken > 0 {
            self.rest = line.get(taken..).unwrap_or_default().to_vec();
        }
        Ok(taken > 0)
    }

    /// Writes `bytes`. Returns how many were taken: none if a FIFO is full.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match (&self.file).write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            taken => taken,
        }
    }
}

/// Counts at the last line, by group, device and name.
type Before = BTreeMap<(&'static str, Option<String>, &'static str), u64>;

/// The writer of the metrics.
pub struct Reporter {
    instance: String,
    metrics: Arc<Metrics>,
    sink: Option<Sink>,
    before: Before,
    due: Arc<AtomicBool>,
}

impl Reporter {
    /// Creates a reporter that writes nothing until [`Self::set`].
    pub fn new(instance: &str, metrics: Arc<Metrics>) -> Self {
        Self {
            instance: instance.to_owned(),
            metrics,
            sink: None,
            before: Before::new(),
            due: Arc::default(),
        }
    }

    /// Sets `sink` as the destination, and starts a timer of one minute on `event_loop`.
    ///
    /// # Errors
    /// [`SinkError::Twice`].
    pub fn set(&mut self, sink: Sink, event_loop: &Loop) -> Result<(), SinkError> {
        if self.sink.is_some() {
            return Err(SinkError::Twice);
        }
        match Ticker::new(self.due.clone(), event_loop.clone()) {
            Ok(ticker) => drop(crate::event_loop::add(event_loop, Box::new(ticker))),
            Err(e) => log::error!("metrics are written on request only: {e}"),
        }
        self.sink = Some(sink);
        Ok(())
    }

    /// Returns whether the timer has expired since the last line.
    pub fn is_due(&self) -> bool {
        self.due.swap(false, Ordering::AcqRel)
    }

    /// Writes a line with the metrics of `devices` and of the process, if there is a destination.
    ///
    /// # Errors
    /// The file cannot be written. A full FIFO is not an error: the line is counted as missed.
    pub fn write(&mut self, devices: &[Source]) -> io::Result<()> {
        let Some(sink) = &mut self.sink else {
            return Ok(());
        };
        let process = self.metrics.sets().into_iter();
        let mut sources: Vec<_> = process.map(|set| Source { id: None, set }).collect();
        sources.extend(devices.iter().cloned());
        let logger = &self.metrics.logger;
        let result = match sink.write_rest() {
            Ok(true) => {
                // A missed line's counts are part of the next line.
                let mut before = self.before.clone();
                let line = render(sink, &self.instance, line_of(&mut before, &sources));
                let begun = sink.write_line(line.as_bytes());
                if let Ok(true) = begun {
                    self.before = before;
                }
                begun
            }
            other => other,
        };
        match result {
            Ok(true) => {}
            Ok(false) => logger.missed_metrics_count.increment(),
            Err(e) => {
                logger.metrics_fails.increment();
                return Err(e);
            }
        }
        match &sink.prometheus {
            Some(path) => replace(path, &text(&self.instance, &sources)),
            None => Ok(()),
        }
    }

    /// Forgets the last counts of devices, whose counters begin at zero again after a restart in place. Call it after the last
    /// report of the old machine.
    pub fn forget_devices(&mut self) {
        // Every line has these groups, and a machine has no others.
        let groups: Vec<_> = always().iter().map(|set| set.group()).collect();
        self.before.retain(|(group, ..), _| !groups.contains(group));
    }
}

/// Returns the line in the form in which it is written.
fn render(sink: &Sink, instance: &str, mut line: Map<String, serde_json::Value>) -> String {
    if sink.emit_id {
        line.insert("id".into(), json!(instance));
    }
    if let Some(properties) = &sink.properties {
        line.insert("properties".into(), json!(properties));
    }
    format!("{}\n", serde_json::Value::Object(line))
}

/// Replaces the file atomically, so that readers see a whole file.
fn replace(path: &Path, contents: &str) -> io::Result<()> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    std::fs::write(&aside, contents)?;
    std::fs::rename(&aside, path)
}

/// Returns a value as a line has it: a count since the last line, by `since`.
fn in_line(value: Value, since: impl FnOnce(u64) -> u64) -> serde_json::Value {
    match value {
        Value::Count(n) => json!(since(n)),
        Value::Level(n) => json!(n),
        Value::Latency {
            min_us,
            max_us,
            sum_us,
            ..
        } => json!({"min_us": min_us, "max_us": max_us, "sum_us": since(sum_us)}),
    }
}

/// Adds a value of the same name.
fn sum(to: &mut serde_json::Value, from: &serde_json::Value) {
    let number = |value: &serde_json::Value, key: &str| value[key].as_u64().unwrap_or(0);
    *to = match (to.as_u64(), from.as_u64()) {
        (Some(a), Some(b)) => json!(a.saturating_add(b)),
        _ => {
            // A minimum of zero means no sample.
            let min = [number(to, "min_us"), number(from, "min_us")];
            let min = min.into_iter().filter(|n| *n > 0).min().unwrap_or(0);
            let max = number(to, "max_us").max(number(from, "max_us"));
            let sum = number(to, "sum_us").saturating_add(number(from, "sum_us"));
            json!({"min_us": min, "max_us": max, "sum_us": sum})
        }
    };
}

/// Returns a line of `sources`, with counts since the last line, which `before` holds.
pub(super) fn line_of(before: &mut Before, sources: &[Source]) -> Map<String, serde_json::Value> {
    let mut line = Map::new();
    let millis = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = millis.map_or(0, |time| time.as_millis());
    line.insert(
        "utc_timestamp_ms".into(),
        json!(u64::try_from(millis).unwrap_or(u64::MAX)),
    );
    for set in always() {
        let mut zeros = Map::new();
        // The set has the key of a device without an id, whose last counts must not change.
        set.visit(&mut |name, value| drop(zeros.insert(name.to_owned(), in_line(value, |n| n))));
        line.insert(set.group().to_owned(), json!(zeros));
    }
    for source in sources {
        let group = source.set.group();
        let mut object = Map::new();
        source.set.visit(&mut |name, value| {
            let key = (group, source.id.clone(), name);
            let since = |now: u64| now - before.insert(key, now).unwrap_or(0).min(now);
            object.insert(name.to_owned(), in_line(value, since));
        });
        if let Some(id) = source.id.as_ref().filter(|_| PER_DEVICE.contains(&group)) {
            line.insert(format!("{group}_{id}"), json!(object));
        }
        match line
            .get_mut(group)
            .and_then(serde_json::Value::as_object_mut)
        {
            Some(all) => {
                for (name, value) in &object {
                    match all.get_mut(name) {
                        Some(to) => sum(to, value),
                        None => drop(all.insert(name.clone(), value.clone())),
                    }
                }
            }
            None => drop(line.insert(group.to_owned(), json!(object))),
        }
    }
    line
}

/// Wakes the loop every minute.
struct Ticker {
    timer: Timer,
    watched: OwnedFd,
    due: Arc<AtomicBool>,
    event_loop: Loop,
}

impl Ticker {
    fn new(due: Arc<AtomicBool>, event_loop: Loop) -> io::Result<Self> {
        let timer = Timer::new()?;
        timer.set(now().saturating_add(INTERVAL));
        Ok(Self {
            watched: timer.source()?.fd,
            timer,
            due,
            event_loop,
        })
    }
}

impl MutEventSubscriber for Ticker {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(e) = ops.add(Events::new(&self.watched, event_manager::EventSet::IN)) {
            log::error!("cannot watch the metrics timer: {e}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        self.timer.acknowledge();
        self.timer.set(now().saturating_add(INTERVAL));
        self.due.store(true, Ordering::Release);
        wake(&self.event_loop);
    }
}

#[cfg(test)]
#[path = "reporter_test.rs"]
mod reporter_test;
