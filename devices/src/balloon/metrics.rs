//! What the balloon counts.

use crate::metric_set;
use crate::util::metrics::Counter;

metric_set! {
    /// What the balloon counts.
    pub struct BalloonMetrics = "balloon" {
        /// Starts that failed.
        activate_fails: Counter,
        /// Kicks of the inflating queue.
        inflate_count: Counter,
        /// Statistics the guest told.
        stats_updates_count: Counter,
        /// Statistics that could not be read.
        stats_update_fails: Counter,
        /// Kicks of the deflating queue.
        deflate_count: Counter,
        /// Broken rings, chains without sense, and pages that could not be given back.
        event_fails: Counter,
        /// Kicks of the queue of reports.
        free_page_report_count: Counter,
        /// Bytes given back after reports.
        free_page_report_freed: Counter,
        /// Reported ranges that could not be given back.
        free_page_report_fails: Counter,
        /// Kicks of the queue of hints.
        free_page_hint_count: Counter,
        /// Bytes given back after hints.
        free_page_hint_freed: Counter,
        /// Hinted ranges that could not be given back.
        free_page_hint_fails: Counter,
    }
}
