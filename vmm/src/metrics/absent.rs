//! Metrics of devices that this version does not have, because clients expect their keys. A new device brings its own set,
//! which replaces the one here.

use devices::metric_set;
use devices::util::metrics::{Counter, Latency, MetricSet};
use std::sync::Arc;

/// Returns all these sets. Each value is always 0.
pub(super) fn sets() -> [Arc<dyn MetricSet>; 2] {
    [
        Arc::new(PmemMetrics::default()),
        Arc::new(MemoryHotplugMetrics::default()),
    ]
}

metric_set! {
    /// Metrics of persistent memory.
    pub struct PmemMetrics = "pmem" {
        activate_fails: Counter,
        cfg_fails: Counter,
        event_fails: Counter,
        queue_event_count: Counter,
        rate_limiter_throttled_events: Counter,
        rate_limiter_event_count: Counter,
    }
}

metric_set! {
    /// Metrics of memory hot-plug.
    pub struct MemoryHotplugMetrics = "memory_hotplug" {
        activate_fails: Counter,
        queue_event_fails: Counter,
        queue_event_count: Counter,
        plug_agg: Latency,
        plug_count: Counter,
        plug_bytes: Counter,
        plug_fails: Counter,
        unplug_agg: Latency,
        unplug_count: Counter,
        unplug_bytes: Counter,
        unplug_fails: Counter,
        unplug_discard_fails: Counter,
        unplug_all_agg: Latency,
        unplug_all_count: Counter,
        unplug_all_fails: Counter,
        state_agg: Latency,
        state_count: Counter,
        state_fails: Counter,
    }
}
