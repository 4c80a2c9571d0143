//! What we send on one connection: numbers, what the peer has acknowledged, how much it takes, and
//! when to send again (RFC 9293, sections 3.7.1 and 3.8).
//!
//! There is no congestion control: between us and the guest is a queue that loses nothing, and the
//! peer's window bounds what is on its way. After a timeout everything not acknowledged is sent again.

use super::tcp::{Segment, Seq};
use std::ops::Range;
use std::time::Duration;

/// Largest segment: what an Ethernet of 1500 bytes carries.
pub const MAX_SEGMENT: u16 = 1460;
/// What a peer takes that does not say (RFC 9293, section 3.7.1).
const DEFAULT_SEGMENT: u16 = 536;
/// Smallest segment, whatever the peer says: less would be mostly headers.
const MIN_SEGMENT: u16 = 48;
/// First timeout. A guest may be slow to be scheduled.
const FIRST_TIMEOUT: Duration = Duration::from_millis(300);
/// Longest timeout.
const LAST_TIMEOUT: Duration = Duration::from_secs(5);
/// Timeouts in a row after which the peer is taken for gone: about half a minute.
const MAX_TIMEOUTS: u32 = 9;

/// What to put into the next segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Its number.
    pub seq: Seq,
    /// It opens the connection.
    pub syn: bool,
    /// Nothing follows.
    pub fin: bool,
    /// Which bytes of [`Sender::data`].
    pub data: Range<usize>,
}

/// One connection's sending side.
#[derive(Debug)]
pub struct Sender {
    /// First number not acknowledged.
    una: Seq,
    /// Next number to send; back at `una` after a timeout.
    next: Seq,
    /// One after the highest number ever sent.
    max: Seq,
    /// What the peer takes after `una`, in bytes.
    window: usize,
    /// Numbers of the segment that last told the window.
    window_from: (Seq, Seq),
    mss: usize,
    /// The peer knows that the connection is open.
    open: bool,
    data: Vec<u8>,
    /// How much of `data` is acknowledged: `una` is the number of the byte after.
    acked: usize,
    /// Nothing follows `data`.
    fin: bool,
    fin_acked: bool,
    timer: Option<Duration>,
    timeouts: u32,
    /// A byte may go although the window is closed, so that the peer tells when it opens.
    probe: bool,
}

impl Sender {
    /// The answer to a peer that opens a connection by `syn`; our first number is `first`.
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

    /// Whether the peer knows that the connection is open.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Whether all was sent and acknowledged.
    pub fn is_idle(&self) -> bool {
        self.open && self.next == self.una && self.remaining() == 0 && self.fin == self.fin_acked
    }

    /// Whether the end was acknowledged.
    pub fn is_over(&self) -> bool {
        self.fin_acked
    }

    /// Sends `data`; only when idle.
    pub fn send(&mut self, data: Vec<u8>) {
        (self.data, self.acked) = (data, 0);
    }

    /// Nothing follows what there is to send.
    pub fn finish(&mut self) {
        self.fin = true;
    }

    /// What pieces are parts of.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The number for a segment without data: the peer accepts none beyond its window.
    pub fn seq(&self) -> Seq {
        let edge = self.una.plus(self.window);
        if self.max.is_after(edge) {
            edge
        } else {
            self.max
        }
    }

    /// Bytes not acknowledged.
    fn remaining(&self) -> usize {
        self.data.len() - self.acked
    }

    /// The next segment, with at most `room` bytes of data.
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
            // Better a whole segment when the window moves (section 3.8.6.2.1).
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

    /// The peer, in a segment numbered `seq`, acknowledges all before `ack` and takes `window` bytes more.
    /// Whether it can be: nothing was sent after `ack`.
    pub fn acknowledged(&mut self, ack: Seq, seq: Seq, window: u16, now: Duration) -> bool {
        if ack.is_after(self.max) {
            return false;
        }
        if ack.is_before(self.una) {
            // An old one.
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
                // A probe may have been dropped: from the start.
                self.next = self.una;
                self.timer = None;
            }
            self.window = window.into();
            self.window_from = (seq, ack);
        }
        if self.window == 0 {
            // It is there and will not be given up.
            self.timeouts = 0;
        }
        true
    }

    /// The peer seems not to have got the first segment.
    pub fn again(&mut self) {
        self.next = self.una;
    }

    /// When [`Self::on_timeout`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.timer
    }

    /// The deadline has passed. Whether there is still hope.
    pub fn on_timeout(&mut self, now: Duration) -> bool {
        self.timeouts += 1;
        self.again();
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
