//! Metrics of the balloon.

use crate::metric_set;
use crate::util::metrics::Counter;

metric_set! {
    /// Metrics of the balloon.
    pub struct BalloonMetrics = "balloon" {
        /// Failed activations.
        activate_fails: Counter,
        /// Kicks of the inflate queue.
        inflate_count: Counter,
        /// Received statistics.
        stats_updates_count: Counter,
        /// Statistics that could not be read.
        stats_update_fails: Counter,
        /// Kicks of the deflate queue.
        deflate_count: Counter,
        /// Broken rings, malformed chains, and pages that could not be released.
        event_fails: Counter,
        /// Kicks of the reporting queue.
        free_page_report_count: Counter,
        /// Bytes released after reports.
        free_page_report_freed: Counter,
        /// Reported ranges that could not be released.
        free_page_report_fails: Counter,
        /// Kicks of the hinting queue.
        free_page_hint_count: Counter,
        /// Bytes released after hints.
        free_page_hint_freed: Counter,
        /// Hinted ranges that could not be released.
        free_page_hint_fails: Counter,
    }
}
