//! Metrics of a disk.

use crate::metric_set;
use crate::util::metrics::{Counter, Latency};

metric_set! {
    /// Metrics of a disk.
    pub struct BlockMetrics = "block" {
        /// Failed activations.
        activate_fails: Counter,
        /// Always 0: a write to the configuration space cannot fail.
        cfg_fails: Counter,
        /// Always 0: a kick of an empty queue is not counted as a failure.
        no_avail_buffer: Counter,
        /// Broken rings.
        event_fails: Counter,
        /// Requests that failed on the host.
        execute_fails: Counter,
        /// Invalid requests.
        invalid_reqs_count: Counter,
        /// Requested flushes.
        flush_count: Counter,
        /// Kicks of the queue.
        queue_event_count: Counter,
        /// Wake-ups by the rate limiter's timer.
        rate_limiter_event_count: Counter,
        /// Changes through the API.
        update_count: Counter,
        /// Failed changes through the API.
        update_fails: Counter,
        /// Bytes the guest read.
        read_bytes: Counter,
        /// Bytes the guest wrote.
        write_bytes: Counter,
        /// Completed reads.
        read_count: Counter,
        /// Completed writes.
        write_count: Counter,
        /// Duration of reads.
        read_agg: Latency,
        /// Duration of writes, including the flush for a driver that does not flush.
        write_agg: Latency,
        /// Requests delayed by the rate limiter.
        rate_limiter_throttled_events: Counter,
        /// Always 0: no engine defers an operation.
        io_engine_throttled_events: Counter,
        /// Always 0: requests left at the end of a turn are not counted.
        remaining_reqs_count: Counter,
    }
}
