//! Counters of the devices, under the names the compatible monitor's clients know.
//!
//! All counts only grow from the start of the process; who reports per interval takes differences. A
//! set is shared: a device counts, the reporter reads, no lock is between them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Counts up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// One more.
    pub fn increment(&self) {
        self.add(1);
    }

    /// `n` more.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// `n` bytes more.
    pub fn add_bytes(&self, n: usize) {
        self.add(u64::try_from(n).unwrap_or(u64::MAX));
    }

    /// The count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long operations took, in microseconds.
#[derive(Debug)]
pub struct Latency {
    min: AtomicU64,
    max: AtomicU64,
    sum: AtomicU64,
    count: AtomicU64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            min: AtomicU64::new(u64::MAX),
            max: AtomicU64::new(0),
            sum: AtomicU64::new(0),
            count: AtomicU64::new(0),
        }
    }
}

impl Latency {
    /// One operation took `time`.
    pub fn record(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.min.fetch_min(time, Ordering::Relaxed);
        self.max.fetch_max(time, Ordering::Relaxed);
        self.sum.fetch_add(time, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A value that goes up and down, or is set once.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is `value` now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// It is `time` in microseconds now.
    pub fn set_time(&self, time: Duration) {
        self.set(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// One value of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A [`Counter`].
    Count(u64),
    /// A [`Gauge`].
    Level(u64),
    /// A [`Latency`], in microseconds; all zero before the first operation.
    Latency {
        /// The shortest.
        min_us: u64,
        /// The longest.
        max_us: u64,
        /// All together.
        sum_us: u64,
        /// How many.
        count: u64,
    },
}

/// What can be read as a [`Value`].
pub trait Metric {
    /// The value now.
    fn value(&self) -> Value;
}

impl Metric for Counter {
    fn value(&self) -> Value {
        Value::Count(self.get())
    }
}

impl Metric for Gauge {
    fn value(&self) -> Value {
        Value::Level(self.0.load(Ordering::Relaxed))
    }
}

impl Metric for Latency {
    fn value(&self) -> Value {
        let get = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let count = get(&self.count);
        Value::Latency {
            min_us: if count == 0 { 0 } else { get(&self.min) },
            max_us: get(&self.max),
            sum_us: get(&self.sum),
            count,
        }
    }
}

/// The counters of one device.
pub trait MetricSet: Send + Sync {
    /// The key of the device type: `block`, `net`, `entropy`, `balloon`, `vsock`, `uart`, `i8042`.
    fn group(&self) -> &'static str;

    /// Calls `f` with each name and value, always in the same order.
    fn visit(&self, f: &mut dyn FnMut(&'static str, Value));
}

/// Defines a [`MetricSet`]: `metric_set! { /// Docs. pub struct Name = "group" { /// Docs. field: Counter, } }`.
#[macro_export]
macro_rules! metric_set {
    ($(#[$about:meta])* pub struct $name:ident = $group:literal {
        $($(#[$doc:meta])* $field:ident: $kind:ty,)*
    }) => {
        $(#[$about])*
        #[derive(Debug, Default)]
        pub struct $name {
            $($(#[$doc])* pub $field: $kind,)*
        }

        impl $crate::util::metrics::MetricSet for $name {
            fn group(&self) -> &'static str {
                $group
            }

            fn visit(&self, f: &mut dyn FnMut(&'static str, $crate::util::metrics::Value)) {
                $(f(stringify!($field), $crate::util::metrics::Metric::value(&self.$field));)*
            }
        }
    };
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod metrics_test;
