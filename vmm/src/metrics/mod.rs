//! What the process counts, besides its devices, and how all of it is told: a line of JSON under the names
//! that the compatible monitor's clients know, or the text format of Prometheus.

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
