//! A metric set with its device.

use devices::util::metrics::MetricSet;
use std::sync::Arc;

/// A metric set and the device it belongs to; none for a set of the process.
#[derive(Clone)]
pub struct Source {
    /// Id of the device in the configuration.
    pub id: Option<String>,
    /// The metric set.
    pub set: Arc<dyn MetricSet>,
}
