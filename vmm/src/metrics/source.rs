//! A set of counters with its device.

use devices::util::metrics::MetricSet;
use std::sync::Arc;

/// A set with the device it belongs to; none for one of the process.
#[derive(Clone)]
pub struct Source {
    /// What the configuration calls the device.
    pub id: Option<String>,
    /// Its counters.
    pub set: Arc<dyn MetricSet>,
}
