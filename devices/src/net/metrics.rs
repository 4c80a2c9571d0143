//! What a network card counts.

use crate::metric_set;
use crate::util::metrics::{Counter, Latency};

metric_set! {
    /// What a network card counts. Bytes are those of frames, without our header.
    pub struct NetMetrics = "net" {
        /// Starts that failed.
        activate_fails: Counter,
        /// Always 0: no write of the configuration can fail.
        cfg_fails: Counter,
        /// Always 0: the address is fixed.
        mac_address_updates: Counter,
        /// Packets that had to wait for the guest's buffers.
        no_rx_avail_buffer: Counter,
        /// Always 0: a kick with nothing in the queue is no failure.
        no_tx_avail_buffer: Counter,
        /// Broken rings.
        event_fails: Counter,
        /// Kicks of the receiving queue.
        rx_queue_event_count: Counter,
        /// Ends of a wait for the limits on receiving.
        rx_event_rate_limiter_count: Counter,
        /// Packets that had to wait for the limits on receiving.
        rx_rate_limiter_throttled: Counter,
        /// Wake-ups by the tap.
        rx_tap_event_count: Counter,
        /// Bytes the guest received.
        rx_bytes_count: Counter,
        /// Packets the guest received.
        rx_packets_count: Counter,
        /// Packets dropped on their way to the guest.
        rx_fails: Counter,
        /// Packets read from the tap.
        rx_count: Counter,
        /// Reads of the tap that failed.
        tap_read_fails: Counter,
        /// Writes to the tap that failed.
        tap_write_fails: Counter,
        /// How long writes to the tap took.
        tap_write_agg: Latency,
        /// Bytes the guest sent.
        tx_bytes_count: Counter,
        /// Packets that could not be read from the guest, or are no packets.
        tx_malformed_frames: Counter,
        /// Packets dropped on their way from the guest.
        tx_fails: Counter,
        /// Packets written to the tap.
        tx_count: Counter,
        /// Packets the guest sent.
        tx_packets_count: Counter,
        /// Always 0: a packet is read whole or not at all.
        tx_partial_reads: Counter,
        /// Kicks of the transmitting queue.
        tx_queue_event_count: Counter,
        /// Ends of a wait for the limits on sending.
        tx_rate_limiter_event_count: Counter,
        /// Packets that had to wait for the limits on sending.
        tx_rate_limiter_throttled: Counter,
        /// Always 0: addresses are the bridge's to check.
        tx_spoofed_mac_count: Counter,
        /// Always 0: what is left of a turn is not counted.
        tx_remaining_reqs_count: Counter,
    }
}
