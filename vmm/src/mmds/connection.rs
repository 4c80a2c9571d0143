//! A TCP connection of the guest: its data becomes requests, and their responses become segments.
//!
//! A request is answered after the last response was acknowledged, so that at most one request and one response are held.
//! Segments out of order are dropped. There is no TIME-WAIT: a peer that repeats its FIN after the connection was removed
//! gets a reset, which ends its connection, too.

use super::ethernet::Mac;
use super::http::{Answer, MAX_REQUEST};
use super::sender::{MAX_SEGMENT, Sender};
use super::tcp::{ACK, FIN, Header, PSH, RST, SYN, Segment, Seq};
use std::net::Ipv4Addr;
use std::time::Duration;

/// Port of the service.
pub const PORT: u16 = 80;
/// Time that a peer may be silent between requests and keep its place, because it may be about to send one.
const IDLE: Duration = Duration::from_secs(1);
/// Time that a peer may be silent during a request or a response and keep its place.
const STUCK: Duration = Duration::from_secs(10);

/// The guest's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Source MAC address of its frames.
    pub mac: Mac,
    /// Its IP address.
    pub ip: Ipv4Addr,
    /// Its port.
    pub port: u16,
}

/// The result of a received segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// The segment belongs to the connection.
    Taken,
    /// The segment belongs to an earlier connection and must be answered by a reset.
    Refused,
    /// The segment was a reset: the connection must be removed.
    Reset,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    sender: Sender,
    /// Sequence number of the peer's SYN.
    first: Seq,
    /// Next expected sequence number of the peer.
    next: Seq,
    /// Received data that is not answered yet.
    request: Vec<u8>,
    /// Whether the peer closed its side.
    peer_closed: bool,
    /// Whether this side is closing: further data is dropped.
    closing: bool,
    /// Whether an acknowledgment must be sent.
    ack_due: bool,
    last_heard: Duration,
}

impl Connection {
    /// Opens the connection of `peer` by its `syn`. This side's sequence numbers begin with `first`.
    pub fn open(peer: Peer, syn: &Segment<'_>, first: Seq, now: Duration) -> Self {
        Self {
            peer,
            sender: Sender::new(first, syn),
            first: syn.seq,
            // Data in a SYN is ignored; the peer sends it again.
            next: syn.seq.plus(1),
            request: Vec::new(),
            peer_closed: false,
            closing: false,
            ack_due: false,
            last_heard: now,
        }
    }

    /// Returns the guest's end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Returns the time of the last segment.
    pub fn last_heard(&self) -> Duration {
        self.last_heard
    }

    /// Returns whether the connection may make room for another.
    pub fn is_idle(&self, now: Duration) -> bool {
        let owes = !self.sender.is_idle() || !self.request.is_empty();
        let timeout = if owes { STUCK } else { IDLE };
        now.saturating_sub(self.last_heard) >= timeout
    }

    /// Returns whether both sides have closed the connection and acknowledged it.
    pub fn is_over(&self) -> bool {
        self.peer_closed && self.sender.is_over() && !self.ack_due
    }

    /// Returns the receive window in bytes.
    fn window(&self) -> usize {
        match self.closing {
            true => MAX_REQUEST,
            false => MAX_REQUEST.saturating_sub(self.request.len()),
        }
    }

    /// Processes a segment of this connection's ports from `mac`. `answer` gets the data received since the last answer.
    pub fn receive(
        &mut self,
        mac: Mac,
        segment: &Segment<'_>,
        now: Duration,
        answer: impl FnOnce(&[u8]) -> Option<Answer>,
    ) -> Received {
        (self.peer.mac, self.last_heard) = (mac, now);
        // The order is that of RFC 9293, section 3.10.7.4, with the checks of RFC 5961.
        let edge = self.next.plus(self.window());
        let end = segment.seq.plus(segment.seq_len());
        let acceptable = !end.is_before(self.next) && !segment.seq.is_after(edge);
        if segment.has(RST) {
            if segment.seq == self.next {
                return Received::Reset;
            }
            self.ack_due |= acceptable;
            return Received::Taken;
        }
        if segment.has(SYN) {
            let repeated = segment.seq == self.first && !self.sender.is_open();
            match repeated && !segment.has(ACK) {
                true => self.sender.resend_syn(),
                // A peer that lost the connection answers the acknowledgment with a reset.
                false => self.ack_due = true,
            }
            return Received::Taken;
        }
        if !segment.has(ACK) {
            return Received::Taken;
        }
        if !acceptable {
            self.ack_due = true;
            return Received::Taken;
        }
        let possible = self
            .sender
            .acknowledged(segment.ack, segment.seq, segment.window, now);
        if !self.sender.is_open() {
            return Received::Refused;
        }
        if !possible {
            self.ack_due = true;
            return Received::Taken;
        }
        self.accept_data(segment);
        self.answer_next(answer);
        Received::Taken
    }

    /// Accepts the new data of a segment that is next in order.
    fn accept_data(&mut self, segment: &Segment<'_>) {
        self.ack_due |= segment.seq_len() > 0;
        if segment.seq.is_after(self.next) || self.peer_closed {
            return;
        }
        let known = self.next.since(segment.seq);
        let new = segment.payload.get(known..).unwrap_or_default();
        let new = new.get(..self.window()).unwrap_or(new);
        if !self.closing {
            self.request.extend_from_slice(new);
        }
        self.next = self.next.plus(new.len());
        if segment.has(FIN) && self.next == segment.seq.plus(segment.payload.len()) {
            self.next = self.next.plus(1);
            self.peer_closed = true;
        }
    }

    /// Answers the next request, if it is complete and the last response was acknowledged.
    fn answer_next(&mut self, answer: impl FnOnce(&[u8]) -> Option<Answer>) {
        if self.closing || !self.sender.is_idle() {
            return;
        }
        if !self.request.is_empty()
            && let Some(answer) = answer(&self.request)
        {
            self.request.drain(..answer.used.min(self.request.len()));
            if self.request.is_empty() {
                self.request = Vec::new();
            }
            self.sender.send(answer.response);
            // The acknowledgment tells the peer about the larger window.
            self.ack_due = true;
            if answer.close || (self.peer_closed && self.request.is_empty()) {
                self.finish();
            }
        } else if self.peer_closed {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.closing = true;
        self.request = Vec::new();
        self.sender.finish();
    }

    /// Returns the next segment to send, with at most `room` bytes of data.
    pub fn next_segment(&mut self, room: usize, now: Duration) -> Option<(Header, &[u8])> {
        let Some(piece) = self.sender.next(room, now) else {
            let due = std::mem::take(&mut self.ack_due);
            return due.then(|| (self.header(self.sender.seq(), ACK), &[][..]));
        };
        self.ack_due = false;
        let mut header = self.header(piece.seq, ACK);
        for (set, flag) in [
            (piece.syn, SYN),
            (piece.fin, FIN),
            (!piece.data.is_empty(), PSH),
        ] {
            header.flags |= if set { flag } else { 0 };
        }
        header.mss = piece.syn.then_some(MAX_SEGMENT);
        let data = self.sender.data().get(piece.data).unwrap_or_default();
        Some((header, data))
    }

    /// Returns the reset that ends the connection.
    pub fn reset(&self) -> Header {
        self.header(self.sender.seq(), RST | ACK)
    }

    fn header(&self, seq: Seq, flags: u8) -> Header {
        Header {
            port: PORT,
            peer_port: self.peer.port,
            seq,
            ack: self.next,
            flags,
            window: u16::try_from(self.window()).unwrap_or(u16::MAX),
            mss: None,
        }
    }

    /// Returns the buffered bytes of the request and of the response.
    #[cfg(test)]
    pub fn buffered(&self) -> (usize, usize) {
        (self.request.capacity(), self.sender.data().len())
    }

    /// Returns when [`Self::on_timeout`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.sender.deadline()
    }

    /// Handles the timeout. Returns false if the peer is considered gone.
    pub fn on_timeout(&mut self, now: Duration) -> bool {
        self.sender.on_timeout(now)
    }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod connection_test;
