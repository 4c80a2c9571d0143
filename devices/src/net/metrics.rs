//! Metrics of a network card.

use crate::metric_set;
use crate::util::metrics::{Counter, Latency};

metric_set! {
    /// Metrics of a network card. Bytes are those of frames without the virtio header.
    pub struct NetMetrics = "net" {
        /// Failed activations.
        activate_fails: Counter,
        /// Always 0: a write to the configuration space cannot fail.
        cfg_fails: Counter,
        /// Always 0: the MAC address is fixed.
        mac_address_updates: Counter,
        /// Packets delayed for lack of guest buffers.
        no_rx_avail_buffer: Counter,
        /// Always 0: a kick of an empty queue is not counted as a failure.
        no_tx_avail_buffer: Counter,
        /// Broken rings.
        event_fails: Counter,
        /// Kicks of the receive queue.
        rx_queue_event_count: Counter,
        /// Wake-ups by the timer of the receive limiter.
        rx_event_rate_limiter_count: Counter,
        /// Packets delayed by the receive limiter.
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
        /// Failed reads from the tap.
        tap_read_fails: Counter,
        /// Failed writes to the tap.
        tap_write_fails: Counter,
        /// Duration of writes to the tap.
        tap_write_agg: Latency,
        /// Bytes the guest sent.
        tx_bytes_count: Counter,
        /// Packets that could not be read from guest memory or are malformed.
        tx_malformed_frames: Counter,
        /// Packets dropped on their way from the guest.
        tx_fails: Counter,
        /// Packets written to the tap.
        tx_count: Counter,
        /// Packets the guest sent.
        tx_packets_count: Counter,
        /// Always 0: packets are read completely or not at all.
        tx_partial_reads: Counter,
        /// Kicks of the transmit queue.
        tx_queue_event_count: Counter,
        /// Wake-ups by the timer of the transmit limiter.
        tx_rate_limiter_event_count: Counter,
        /// Packets delayed by the transmit limiter.
        tx_rate_limiter_throttled: Counter,
        /// Always 0: the host's network checks addresses.
        tx_spoofed_mac_count: Counter,
        /// Always 0: packets left at the end of a turn are not counted.
        tx_remaining_reqs_count: Counter,
    }
}
