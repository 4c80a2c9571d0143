//! One connection of the guest's: what it sent becomes requests, and their responses are what we send.
//!
//! A request is answered when all of the response before is acknowledged, so that at most one response
//! and one request are held. Segments out of order are dropped. There is no TIME-WAIT: who sends
//! its FIN again after we forgot the connection gets a reset, and is done as well.

use super::ethernet::Mac;
use super::http::{Answer, MAX_REQUEST};
use super::sender::{MAX_SEGMENT, Sender};
use super::tcp::{ACK, FIN, Header, PSH, RST, SYN, Segment, Seq};
use std::net::Ipv4Addr;
use std::time::Duration;

/// The port of the service.
pub const PORT: u16 = 80;
/// How long a peer that owes us nothing may be silent and still keep its place: it may be about to ask.
const IDLE: Duration = Duration::from_secs(1);
/// How long a peer that owes us the rest of a request, or has an answer to take, may be silent.
const STUCK: Duration = Duration::from_secs(10);

/// The guest's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Where its frames came from.
    pub mac: Mac,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its port.
    pub port: u16,
}

/// What a received segment did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// It belongs to the connection.
    Taken,
    /// It belongs to another, which is no more: it wants a reset.
    Refused,
    /// It was a reset: forget the connection.
    Reset,
}

/// A connection.
#[derive(Debug)]
pub struct Connection {
    peer: Peer,
    sender: Sender,
    /// The number of the peer's first segment.
    first: Seq,
    /// The next number of the peer's.
    next: Seq,
    /// What was received and not answered.
    request: Vec<u8>,
    /// The peer sends nothing more.
    peer_done: bool,
    /// We answer nothing more: what comes is dropped.
    deaf: bool,
    /// The peer must hear what we got.
    ack_due: bool,
    heard: Duration,
}

impl Connection {
    /// The connection that `syn` of `peer` opens; our numbers begin with `first`.
    pub fn open(peer: Peer, syn: &Segment<'_>, first: Seq, now: Duration) -> Self {
        Self {
            peer,
            sender: Sender::new(first, syn),
            first: syn.seq,
            // Data that comes along is sent again.
            next: syn.seq.plus(1),
            request: Vec::new(),
            peer_done: false,
            deaf: false,
            ack_due: false,
            heard: now,
        }
    }

    /// The guest's end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// When it was last heard of.
    pub fn heard(&self) -> Duration {
        self.heard
    }

    /// Whether its place may go to another.
    pub fn is_idle(&self, now: Duration) -> bool {
        let owes = !self.sender.is_idle() || !self.request.is_empty();
        let patience = if owes { STUCK } else { IDLE };
        now.saturating_sub(self.heard) >= patience
    }

    /// Whether both sides have ended it, and know so.
    pub fn is_over(&self) -> bool {
        self.peer_done && self.sender.is_over() && !self.ack_due
    }

    /// Bytes we take.
    fn window(&self) -> usize {
        match self.deaf {
            true => MAX_REQUEST,
            false => MAX_REQUEST.saturating_sub(self.request.len()),
        }
    }

    /// A segment of this connection's ports, from `mac`. `answer` is given what was received since the last answer.
    pub fn receive(
        &mut self,
        mac: Mac,
        segment: &Segment<'_>,
        now: Duration,
        answer: impl FnOnce(&[u8]) -> Option<Answer>,
    ) -> Received {
        (self.peer.mac, self.heard) = (mac, now);
        // RFC 9293, section 3.10.7.4, in its order, with the checks of RFC 5961.
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
                true => self.sender.again(),
                // A peer that forgot the connection answers with a reset.
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
        self.take(segment);
        self.go_on(answer);
        Received::Taken
    }

    /// Takes what is new of the segment's data, if it comes next.
    fn take(&mut self, segment: &Segment<'_>) {
        self.ack_due |= segment.seq_len() > 0;
        if segment.seq.is_after(self.next) || self.peer_done {
            return;
        }
        let known = self.next.since(segment.seq);
        let new = segment.payload.get(known..).unwrap_or_default();
        let new = new.get(..self.window()).unwrap_or(new);
        if !self.deaf {
            self.request.extend_from_slice(new);
        }
        self.next = self.next.plus(new.len());
        if segment.has(FIN) && self.next == segment.seq.plus(segment.payload.len()) {
            self.next = self.next.plus(1);
            self.peer_done = true;
        }
    }

    /// Answers the next request, if it is its turn and whole.
    fn go_on(&mut self, answer: impl FnOnce(&[u8]) -> Option<Answer>) {
        if self.deaf || !self.sender.is_idle() {
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
            // The window has grown.
            self.ack_due = true;
            if answer.close || (self.peer_done && self.request.is_empty()) {
                self.finish();
            }
        } else if self.peer_done {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.deaf = true;
        self.request = Vec::new();
        self.sender.finish();
    }

    /// The next segment, with at most `room` bytes of data.
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

    /// Tells the peer that the connection is no more.
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

    /// Bytes of the guest's and for the guest that it holds.
    #[cfg(test)]
    pub fn held(&self) -> (usize, usize) {
        (self.request.capacity(), self.sender.data().len())
    }

    /// When [`Self::on_timeout`] is due.
    pub fn deadline(&self) -> Option<Duration> {
        self.sender.deadline()
    }

    /// The deadline has passed. Whether there is still hope.
    pub fn on_timeout(&mut self, now: Duration) -> bool {
        self.sender.on_timeout(now)
    }
}

#[cfg(test)]
#[path = "connection_test.rs"]
mod connection_test;
