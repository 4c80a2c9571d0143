//! Metrics of the socket device.

use crate::metric_set;
use crate::util::metrics::Counter;

metric_set! {
    /// Metrics of the socket device. Bytes are those of streams without headers.
    pub struct VsockMetrics = "vsock" {
        /// Failed activations.
        activate_fails: Counter,
        /// Always 0: a write to the configuration space cannot fail.
        cfg_fails: Counter,
        /// Broken receive rings.
        rx_queue_event_fails: Counter,
        /// Broken transmit rings.
        tx_queue_event_fails: Counter,
        /// Broken event rings of restored guests that had to be notified.
        ev_queue_event_fails: Counter,
        /// Failures of the listening socket and of epoll.
        muxer_event_fails: Counter,
        /// Sockets that epoll cannot watch.
        conn_event_fails: Counter,
        /// Kicks of the receive queue.
        rx_queue_event_count: Counter,
        /// Kicks of the transmit queue.
        tx_queue_event_count: Counter,
        /// Bytes the guest received.
        rx_bytes_count: Counter,
        /// Bytes of the guest written to host sockets.
        tx_bytes_count: Counter,
        /// Packets the guest received.
        rx_packets_count: Counter,
        /// Packets the guest sent.
        tx_packets_count: Counter,
        /// Opened connections.
        conns_added: Counter,
        /// Connections closed by a failure, a protocol violation of the guest, or a device reset.
        conns_killed: Counter,
        /// Closed connections of all kinds.
        conns_removed: Counter,
        /// Always 0: connections to close are never queued.
        killq_resync: Counter,
        /// Failed writes of buffered bytes.
        tx_flush_fails: Counter,
        /// Failed writes to host sockets.
        tx_write_fails: Counter,
        /// Failed reads from host sockets.
        rx_read_fails: Counter,
    }
}
