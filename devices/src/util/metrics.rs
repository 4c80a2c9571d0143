//! Counters of the devices, under the names that Firecracker's clients know.
//!
//! Counters only grow; a reporter that needs an interval takes differences. A set is shared without a lock: the device
//! counts, the reporter reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Adds `n` bytes.
    pub fn add_bytes(&self, n: usize) {
        self.add(u64::try_from(n).unwrap_or(u64::MAX));
    }

    /// Returns the count.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Durations of operations in microseconds: shortest, longest, sum and number.
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
    /// Records an operation that took `time`.
    pub fn record(&self, time: Duration) {
        let time = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.min.fetch_min(time, Ordering::Relaxed);
        self.max.fetch_max(time, Ordering::Relaxed);
        self.sum.fetch_add(time, Ordering::Relaxed);
        self.count.fetch_add(1, Ordering::Relaxed);
    }
}

/// A number that can grow and shrink.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// Sets the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Sets the value to `time` in microseconds.
    pub fn set_time(&self, time: Duration) {
        self.set(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }
}

/// The value of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// A [`Counter`].
    Count(u64),
    /// A [`Gauge`].
    Level(u64),
    /// A [`Latency`] in microseconds. All fields are zero before the first operation.
    Latency {
        /// Shortest duration.
        min_us: u64,
        /// Longest duration.
        max_us: u64,
        /// Sum of all durations.
        sum_us: u64,
        /// Number of operations.
        count: u64,
    },
}

/// A metric that has a [`Value`].
pub trait Metric {
    /// Returns the current value.
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

/// The metrics of one device.
pub trait MetricSet: Send + Sync {
    /// Returns the key of the device type: `block`, `net`, `entropy`, `balloon`, `vsock`, `uart`, `i8042`.
    fn group(&self) -> &'static str;

    /// Calls `f` with the name and value of each metric, always in the same order.
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
