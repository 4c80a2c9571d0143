//! What the socket device counts.

use crate::metric_set;
use crate::util::metrics::Counter;

metric_set! {
    /// What the socket device counts. Bytes are those of streams, without headers.
    pub struct VsockMetrics = "vsock" {
        /// Starts that failed.
        activate_fails: Counter,
        /// Always 0: no write of the configuration can fail.
        cfg_fails: Counter,
        /// Broken receiving rings.
        rx_queue_event_fails: Counter,
        /// Broken transmitting rings.
        tx_queue_event_fails: Counter,
        /// Broken event rings, of a restored guest that was to be told of its cut connections.
        ev_queue_event_fails: Counter,
        /// Failures of the listening socket, or to wait for sockets.
        muxer_event_fails: Counter,
        /// Sockets that cannot be waited for.
        conn_event_fails: Counter,
        /// Kicks of the receiving queue.
        rx_queue_event_count: Counter,
        /// Kicks of the transmitting queue.
        tx_queue_event_count: Counter,
        /// Bytes the guest received.
        rx_bytes_count: Counter,
        /// Bytes of the guest that reached the host's sockets.
        tx_bytes_count: Counter,
        /// Packets the guest received.
        rx_packets_count: Counter,
        /// Packets the guest sent.
        tx_packets_count: Counter,
        /// Connections that began.
        conns_added: Counter,
        /// Connections cut: by a failure, a mistake of the guest, or a reset of the device.
        conns_killed: Counter,
        /// Connections that are gone, those cut included.
        conns_removed: Counter,
        /// Always 0: connections are never queued to be cut.
        killq_resync: Counter,
        /// Buffered bytes that a socket does not take any more.
        tx_flush_fails: Counter,
        /// Writes to the host's sockets that failed.
        tx_write_fails: Counter,
        /// Reads of the host's sockets that failed.
        rx_read_fails: Counter,
    }
}
