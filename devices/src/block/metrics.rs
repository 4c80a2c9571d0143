//! What a disk counts.

use crate::metric_set;
use crate::util::metrics::{Counter, Latency};

metric_set! {
    /// What a disk counts.
    pub struct BlockMetrics = "block" {
        /// Starts that failed.
        activate_fails: Counter,
        /// Always 0: no write of the configuration can fail.
        cfg_fails: Counter,
        /// Always 0: a kick with nothing in the queue is no failure.
        no_avail_buffer: Counter,
        /// Broken rings.
        event_fails: Counter,
        /// Requests that the host failed.
        execute_fails: Counter,
        /// Requests that make no sense.
        invalid_reqs_count: Counter,
        /// Flushes asked for.
        flush_count: Counter,
        /// Kicks of the queue.
        queue_event_count: Counter,
        /// Ends of a wait for the limits.
        rate_limiter_event_count: Counter,
        /// Changes while the guest runs.
        update_count: Counter,
        /// Those that failed.
        update_fails: Counter,
        /// Bytes the guest read.
        read_bytes: Counter,
        /// Bytes the guest wrote.
        write_bytes: Counter,
        /// Reads that were done.
        read_count: Counter,
        /// Writes that were done.
        write_count: Counter,
        /// How long reads took.
        read_agg: Latency,
        /// How long writes took, with the flush of a driver that does not flush.
        write_agg: Latency,
        /// Requests that had to wait for the limits.
        rate_limiter_throttled_events: Counter,
        /// Always 0: no engine here refuses an operation for later.
        io_engine_throttled_events: Counter,
        /// Always 0: what is left of a turn is not counted.
        remaining_reqs_count: Counter,
    }
}
