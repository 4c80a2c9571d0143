//! What the metadata service counts.

use devices::metric_set;
use devices::util::metrics::Counter;

metric_set! {
    /// What the metadata service counts, over all cards.
    pub struct MmdsMetrics = "mmds" {
        /// Frames that came to the service.
        rx_accepted: Counter,
        /// Of these, IPv4 and TCP headers that could not be read.
        rx_accepted_err: Counter,
        /// Of these, packets for which there is no service, or from nobody.
        rx_accepted_unusual: Counter,
        /// Of these, what is no Ethernet frame.
        rx_bad_eth: Counter,
        /// GET requests with a token that is not good.
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
        /// Connections begun.
        connections_created: Counter,
        /// Connections ended, in whatever way.
        connections_destroyed: Counter,
    }
}
