//! Metrics of the metadata service.

use devices::metric_set;
use devices::util::metrics::Counter;

metric_set! {
    /// Metrics of the metadata service, over all cards.
    pub struct MmdsMetrics = "mmds" {
        /// Frames for the service.
        rx_accepted: Counter,
        /// Frames whose IPv4 or TCP header was invalid.
        rx_accepted_err: Counter,
        /// Packets of other protocols, for other ports, or with an invalid source.
        rx_accepted_unusual: Counter,
        /// Frames that are not Ethernet frames.
        rx_bad_eth: Counter,
        /// GET requests with an invalid token.
        rx_invalid_token: Counter,
        /// GET requests without a token.
        rx_no_token: Counter,
        /// TCP segments received.
        rx_count: Counter,
        /// Bytes of frames sent.
        tx_bytes: Counter,
        /// Frames sent; the same as `tx_frames`.
        tx_count: Counter,
        /// Frames that could not be sent: no room, or too many at once.
        tx_errors: Counter,
        /// Frames sent.
        tx_frames: Counter,
        /// Opened connections.
        connections_created: Counter,
        /// Closed connections.
        connections_destroyed: Counter,
    }
}
