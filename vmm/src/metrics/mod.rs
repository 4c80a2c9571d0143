//! The metrics of the process, and the reports of all metrics: lines of JSON under Firecracker's names, and Prometheus's text
//! format.
//!
//! All rooms count in the sets that this room defines. The controller writes the reports. Devices define their own metrics.

mod absent;
mod prometheus;
mod reporter;
mod requests;
mod sets;
mod source;

pub use prometheus::text;
pub use reporter::{Reporter, Sink, SinkError};
pub use requests::{ApiMetrics, GetRequests, PatchRequests, PutRequests};
pub use sets::{
    DeprecatedMetrics, InterruptMetrics, LatencyMetrics, Metrics, SeccompMetrics, ServerMetrics,
    SignalMetrics, VmmMetrics,
};
pub use source::Source;

#[cfg(test)]
#[path = "metrics_test.rs"]
mod metrics_test;
