//! The sending side of a connection: sequence numbers, acknowledgments, the peer's window, and retransmission (RFC 9293,
//! sections 3.7.1 and 3.8).
//!
//! There is no congestion control: the queue to the guest loses nothing, and the peer's window bounds the data in flight.
//! After a timeout all unacknowledged data is sent again.

use super::tcp::{Segment, Seq};
use std::ops::Range;
use std::time::Duration;

/// Largest segment: the payload of an Ethernet frame of 1500 bytes.
pub const MAX_SEGMENT: u16 = 1460;
/// Segment size of a peer that does not announce one (RFC 9293, section 3.7.1).
const DEFAULT_SEGMENT: u16 = 536;
/// Smallest segment, even if the peer announces less: shorter ones would be mostly headers.
const MIN_SEGMENT: u16 = 48;
/// First timeout. The guest may be scheduled late.
const FIRST_TIMEOUT: Duration = Duration::from_millis(300);
/// Longest timeout.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// Number of successive timeouts after which the peer is considered gone: about half a minute.
const MAX_TIMEOUTS: u32 = 9;

/// The content of the next segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Sequence number.
    pub seq: Seq,
    /// Whether the segment opens the connection.
    pub syn: bool,
    /// Whether the segment closes the connection.
    pub fin: bool,
    /// Range of [`Sender::data`].
    pub data: Range<usize>,
}

/// The sending side of a connection.
#[derive(Debug)]
pub struct Sender {
    /// First unacknowledged sequence number.
    una: Seq,
    /// Next sequence number to send; equal to `una` after a timeout.
    next: Seq,
    /// One after the highest sequence number ever sent.
    max: Seq,
    /// Bytes that the peer takes after `una`.
    window: usize,
    /// Sequence and acknowledgment number of the segment that last updated the window.
    window_from: (Seq, Seq),
    mss: usize,
    /// Whether the peer acknowledged the SYN.
    open: bool,
    data: Vec<u8>,
    /// Acknowledged bytes of `data`: `una` is the number of the next byte.
    acked: usize,
    /// Whether the connection closes after `data`.
    fin: bool,
    fin_acked: bool,
    timer: Option<Duration>,
    timeouts: u32,
    /// Whether one byte may be sent into a closed window, to learn when it opens.
    probe: bool,
}

impl Sender {
    /// Creates the sender for a peer that opens a connection by `syn`. Its sequence numbers begin with `first`.
    pub fn new(first: Seq, syn: &Segment<'_>) -> Self {
        let mss = syn.mss.unwrap_or(DEFAULT_SEGMENT);
        Self {
            una: first,
            next: first,
            max: first,
            window: syn.window.into(),
            window_from: (syn.seq, first),
            mss: mss.clamp(MIN_SEGMENT, MAX_SEGMENT).into(),
            open: false,
            data: Vec::new(),
            acked: 0,
            fin: false,
            fin_acked: false,
            timer: None,
            timeouts: 0,
            probe: false,
        }
    }

    /// Returns whether the peer acknowledged the SYN.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Returns whether all data was sent and acknowledged.
    pub fn is_idle(&self) -> bool {
        self.open && self.next == self.una && self.remaining() == 0 && self.fin == self.fin_acked
    }

    /// Returns whether the FIN was acknowledged.
    pub fn is_over(&self) -> bool {
        self.fin_acked
    }

    /// Sends `data`. Call it only when idle.
    pub fn send(&mut self, data: Vec<u8>) {
        (self.data, self.acked) = (data, 0);
    }

    /// Closes the connection after the current data.
    pub fn finish(&mut self) {
        self.fin = true;
    }

    /// Returns the data that pieces refer to.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Returns the sequence number for a segment without data, which must lie in the peer's window.
    pub fn seq(&self) -> Seq {
        let edge = self.una.plus(self.window);
        if self.max.is_after(edge) {
            edge
        } else {
            self.max
        }
    }

    /// Returns the number of unacknowledged bytes.
    fn remaining(&self) -> usize {
        self.data.len() - self.acked
    }

    /// Returns the next segment, with at most `room` bytes of data.
    pub fn next(&mut self, room: usize, now: Duration) -> Option<Piece> {
        let in_flight = self.next.since(self.una);
        if !self.open {
            return (in_flight == 0).then(|| self.sent(true, false, 0..0, now));
        }
        let unsent = self.remaining().saturating_sub(in_flight);
        if in_flight > self.remaining() || self.fin_acked {
            return None;
        }
        let most = unsent.min(self.mss).min(room);
        let mut len = most.min(self.window.saturating_sub(in_flight));
        if len < most && in_flight > 0 {
            // Wait for room for a whole segment (section 3.8.6.2.1).
            return None;
        }
        if len == 0 && unsent > 0 {
            if !self.probe || room == 0 {
                let timeout = self.timeout(now);
                self.timer.get_or_insert(timeout);
                return None;
            }
            len = 1;
        }
        let fin = self.fin && len == unsent;
        if len == 0 && !fin {
            return None;
        }
        let start = self.acked + in_flight;
        Some(self.sent(false, fin, start..start + len, now))
    }

    fn sent(&mut self, syn: bool, fin: bool, data: Range<usize>, now: Duration) -> Piece {
        let seq = self.next;
        self.next = seq.plus(data.len() + usize::from(syn) + usize::from(fin));
        if self.next.is_after(self.max) {
            self.max = self.next;
        }
        self.probe = false;
        let timeout = self.timeout(now);
        self.timer.get_or_insert(timeout);
        Piece {
            seq,
            syn,
            fin,
            data,
        }
    }

    /// Processes an acknowledgment of all before `ack` and a window of `window` bytes, in a segment numbered `seq`. Returns
    /// whether it is possible: `ack` is not beyond what was sent.
    pub fn acknowledged(&mut self, ack: Seq, seq: Seq, window: u16, now: Duration) -> bool {
        if ack.is_after(self.max) {
            return false;
        }
        if ack.is_before(self.una) {
            // The acknowledgment is old.
            return true;
        }
        let mut count = ack.since(self.una);
        if count > 0 {
            if !self.open {
                self.open = true;
                count -= 1;
            }
            self.fin_acked |= count > self.remaining();
            self.acked += count.min(self.remaining());
            self.una = ack;
            if self.next.is_before(ack) {
                self.next = ack;
            }
            self.timeouts = 0;
            self.timer = (self.next != ack).then(|| self.timeout(now));
            if self.remaining() == 0 {
                self.send(Vec::new());
            }
        }
        let (last_seq, last_ack) = self.window_from;
        if last_seq.is_before(seq) || (last_seq == seq && !last_ack.is_after(ack)) {
            if self.window == 0 && window > 0 {
                // The peer may have dropped a probe, so all is sent again.
                self.next = self.una;
                self.timer = None;
            }
            self.window = window.into();
            self.window_from = (seq, ack);
        }
        if self.window == 0 {
            // A peer that acknowledges is alive.
            self.timeouts = 0;
        }
        true
    }

    /// Sends the SYN again, because the peer seems not to have received it.
    pub fn resend_syn(&mut self) {
        self.next = self.una;
    }

    /// Returns when [`Self::on_timeout`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.timer
    }

    /// Handles the timeout. Returns false if the peer is considered gone.
    pub fn on_timeout(&mut self, now: Duration) -> bool {
        self.timeouts += 1;
        self.resend_syn();
        self.probe = true;
        self.timer = Some(self.timeout(now));
        self.timeouts <= MAX_TIMEOUTS
    }

    fn timeout(&self, now: Duration) -> Duration {
        let timeout = FIRST_TIMEOUT.saturating_mul(1 << self.timeouts.min(8));
        now.saturating_add(timeout.min(LAST_TIMEOUT))
    }
}

#[cfg(test)]
#[path = "sender_test.rs"]
mod sender_test;
