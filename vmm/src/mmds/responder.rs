//! The metadata service on one card: an ARP and TCP/IP host between the driver and the tap.
//!
//! It only answers. [`MAX_CONNECTIONS`] and [`MAX_ANSWERS`] bound its memory: a new connection replaces the one that has
//! been idle longest, or must be tried again if none is idle.

use super::connection::{Connection, PORT, Peer, Received};
use super::ethernet::{self, Frame, Mac};
use super::shared::Shared;
use super::tcp::{self, FIN, Header, RST, SYN, Segment};
use super::{arp, ipv4};
use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// Limit of connections.
pub const MAX_CONNECTIONS: usize = 30;
/// Limit of unsent answers that belong to no connection. More are dropped.
const MAX_ANSWERS: usize = 64;
/// Size of all headers before a segment's data.
const HEADERS: usize = ethernet::HEADER + ipv4::HEADER + tcp::HEADER;

/// An unsent answer that belongs to no connection.
#[derive(Debug)]
enum Pending {
    Arp(arp::Request),
    Reset(Mac, Ipv4Addr, Header),
}

/// The service on one card.
#[derive(Debug)]
pub struct Responder {
    shared: Arc<Shared>,
    connections: Vec<Connection>,
    /// Index of the connection that may send next.
    turn: usize,
    waiting: VecDeque<Pending>,
    /// Whether there may be something to send. The card asks far more often than there is.
    active: bool,
}

impl Responder {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            connections: Vec::new(),
            turn: 0,
            waiting: VecDeque::new(),
            active: false,
        }
    }

    fn receive_ipv4(&mut self, mac: Mac, bytes: &[u8]) {
        let metrics = self.shared.metrics.clone();
        let Some(packet) = ipv4::Packet::parse(bytes) else {
            return metrics.rx_accepted_err.increment();
        };
        let from = packet.source;
        let is_host = !from.is_unspecified() && !from.is_multicast() && !from.is_broadcast();
        if packet.protocol != ipv4::TCP || !is_host || from == self.shared.address() {
            return metrics.rx_accepted_unusual.increment();
        }
        let Some(segment) = Segment::parse(packet.payload) else {
            return metrics.rx_accepted_err.increment();
        };
        metrics.rx_count.increment();
        let peer = Peer {
            mac,
            ip: from,
            port: segment.source_port,
        };
        self.receive_segment(peer, &segment);
    }

    fn receive_segment(&mut self, peer: Peer, segment: &Segment<'_>) {
        let now = self.shared.now();
        let same = |c: &Connection| (c.peer().ip, c.peer().port) == (peer.ip, peer.port);
        let known = self.connections.iter().position(same);
        let known = known.filter(|_| segment.port == PORT);
        if let Some(index) = known
            && let Some(connection) = self.connections.get_mut(index)
        {
            let shared = &self.shared;
            match connection.receive(peer.mac, segment, now, |bytes| shared.answer(bytes)) {
                Received::Taken if connection.is_over() => self.remove(index),
                Received::Taken => {}
                Received::Refused => self.refuse(peer, segment),
                Received::Reset => self.remove(index),
            }
        } else if segment.port == PORT && segment.flags & (SYN | tcp::ACK | RST | FIN) == SYN {
            self.open(peer, segment, now);
        } else {
            self.refuse(peer, segment);
        }
    }

    fn open(&mut self, peer: Peer, syn: &Segment<'_>, now: Duration) {
        if !self.make_room(now) {
            // The guest tries again in a second, when a connection has probably ended.
            return self.shared.metrics.rx_accepted_unusual.increment();
        }
        let first = self.shared.first_seq(now);
        let connection = Connection::open(peer, syn, first, now);
        self.connections.push(connection);
        self.shared.metrics.connections_created.increment();
    }

    /// Makes room for one more connection. Returns whether there is room.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.connections.len() < MAX_CONNECTIONS {
            return true;
        }
        let connections = self.connections.iter().enumerate();
        let idle = connections.filter(|(_, connection)| connection.is_idle(now));
        let oldest = idle.min_by_key(|(_, connection)| connection.last_heard());
        let oldest = oldest.map(|(index, _)| index);
        if let Some(index) = oldest {
            self.reset(index);
        }
        oldest.is_some()
    }

    fn refuse(&mut self, peer: Peer, segment: &Segment<'_>) {
        self.shared.metrics.rx_accepted_unusual.increment();
        if let Some(header) = segment.reset() {
            self.wait(Pending::Reset(peer.mac, peer.ip, header));
        }
    }

    /// Resets and removes a connection.
    fn reset(&mut self, index: usize) {
        if let Some(connection) = self.connections.get(index) {
            let Peer { mac, ip, .. } = *connection.peer();
            let header = connection.reset();
            self.remove(index);
            self.wait(Pending::Reset(mac, ip, header));
        }
    }

    fn remove(&mut self, index: usize) {
        self.connections.swap_remove(index);
        self.shared.metrics.connections_destroyed.increment();
    }

    fn wait(&mut self, answer: Pending) {
        match self.waiting.len() < MAX_ANSWERS {
            true => self.waiting.push_back(answer),
            false => self.shared.metrics.tx_errors.increment(),
        }
    }

    /// Writes the next segment of any connection to `buffer`. Returns its length, or `Some(None)` if it does not fit.
    fn next_segment(&mut self, buffer: &mut [u8]) -> Option<Option<usize>> {
        let now = self.shared.now();
        let room = buffer.len().saturating_sub(HEADERS);
        let count = self.connections.len();
        let order = (self.turn..count).chain(0..self.turn.min(count));
        for index in order {
            let connection = self.connections.get_mut(index)?;
            let Peer { mac, ip, .. } = *connection.peer();
            let Some((header, data)) = connection.next_segment(room, now) else {
                continue;
            };
            let written = write_segment(buffer, mac, self.shared.address(), ip, &header, data);
            self.turn = index + 1;
            if connection.is_over() {
                self.remove(index);
            }
            return Some(written);
        }
        None
    }
}

impl devices::net::responder::Responder for Responder {
    fn takes(&self, head: &[u8]) -> bool {
        let Some(frame) = Frame::parse(head) else {
            return false;
        };
        let target = match frame.ethertype {
            ethernet::ARP => arp::Request::parse(frame.payload).map(|request| request.target),
            ethernet::IPV4 => ipv4::destination(frame.payload),
            _ => None,
        };
        target == Some(self.shared.address())
    }

    fn receive(&mut self, frame: &[u8]) {
        self.shared.metrics.rx_accepted.increment();
        let Some(frame) = Frame::parse(frame) else {
            return self.shared.metrics.rx_bad_eth.increment();
        };
        self.active = true;
        match frame.ethertype {
            ethernet::IPV4 => self.receive_ipv4(frame.source, frame.payload),
            _ => {
                if let Some(request) = arp::Request::parse(frame.payload) {
                    self.wait(Pending::Arp(request));
                }
            }
        }
    }

    fn next_frame(&mut self, buffer: &mut [u8]) -> Option<usize> {
        if !self.active {
            return None;
        }
        let written = match self.waiting.pop_front() {
            Some(Pending::Arp(request)) => {
                let header = ethernet::header(request.sender_mac, ethernet::ARP);
                write(buffer, &[&header, &request.reply()])
            }
            Some(Pending::Reset(mac, ip, header)) => {
                write_segment(buffer, mac, self.shared.address(), ip, &header, &[])
            }
            None => match self.next_segment(buffer) {
                Some(written) => written,
                None => {
                    self.active = false;
                    return None;
                }
            },
        };
        let metrics = &self.shared.metrics;
        match written {
            Some(len) => {
                metrics.tx_count.increment();
                metrics.tx_frames.increment();
                metrics.tx_bytes.add_bytes(len);
            }
            None => metrics.tx_errors.increment(),
        }
        written
    }

    fn deadline(&mut self) -> Option<Duration> {
        let deadlines = self.connections.iter().filter_map(Connection::deadline);
        let first = deadlines.min()?;
        Some(first.saturating_sub(self.shared.now()))
    }

    fn poll(&mut self) {
        let now = self.shared.now();
        self.active = true;
        // From the end, because removing a connection moves the last one to its index.
        for index in (0..self.connections.len()).rev() {
            let hope = self.connections.get_mut(index).is_none_or(|connection| {
                let due = connection.deadline().is_some_and(|time| time <= now);
                !due || connection.on_timeout(now)
            });
            if !hope {
                self.reset(index);
            }
        }
    }
}

/// Writes `pieces` to `buffer` one after the other. Returns their length, if they fit.
fn write(buffer: &mut [u8], pieces: &[&[u8]]) -> Option<usize> {
    let mut len = 0;
    for piece in pieces {
        let place = buffer.get_mut(len..len + piece.len())?;
        place.copy_from_slice(piece);
        len += piece.len();
    }
    Some(len)
}

fn write_segment(
    buffer: &mut [u8],
    mac: Mac,
    from: Ipv4Addr,
    to: Ipv4Addr,
    header: &Header,
    data: &[u8],
) -> Option<usize> {
    let segment_len = header.size() + data.len();
    let ip = ipv4::header(from, to, segment_len)?;
    let headers_len = write(buffer, &[&ethernet::header(mac, ethernet::IPV4), &ip])?;
    let segment = buffer.get_mut(headers_len..headers_len + segment_len)?;
    header.write(from, to, data, segment);
    Some(headers_len + segment_len)
}

#[cfg(test)]
#[path = "responder_test.rs"]
mod responder_test;
