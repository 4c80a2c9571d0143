//! One stream between a port of the guest and a Unix socket: credit both ways (section 5.10.6.3),
//! the two half closes, and a bounded buffer toward the host. It knows neither rings nor epoll.

use super::metrics::VsockMetrics;
use super::packet::{Header, NEITHER, NO_RECEIVE, NO_SEND, op};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::collections::VecDeque;
use std::net::Shutdown;
use std::num::Wrapping;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

/// Bytes of one connection on their way to a host that does not read: what the guest is told it may
/// have under way. Linux sends no larger packet.
pub(super) const BUFFER: usize = 64 << 10;
const BUFFER_32: u32 = 64 << 10;
/// Room is told of in no smaller pieces, lest a host that reads bytes makes a packet of each.
const MIN_UPDATE: u32 = 4 << 10;

/// The guest broke the protocol, or the host's socket is gone: the connection is to be cut.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The host asks; `told` once the guest has been.
    Asking {
        told: bool,
    },
    Established,
}

/// A packet for the guest, but for its addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub op: u16,
    pub flags: u32,
    /// Bytes of payload, in the buffer that was lent.
    pub len: usize,
}

impl Outgoing {
    /// A packet that carries nothing.
    pub(super) fn control(op: u16) -> Self {
        Self {
            op,
            flags: 0,
            len: 0,
        }
    }
}

/// What epoll says of the socket. Each stays set until a call finds otherwise.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    pub readable: bool,
    pub writable: bool,
    /// The peer will neither read nor write any more.
    pub gone: bool,
}

pub(super) struct Connection {
    stream: UnixStream,
    /// Under which epoll knows the socket.
    pub token: u64,
    /// Waits among those with something for the guest.
    pub queued: bool,
    /// Epoll is to tell of room in the socket.
    pub room_watched: bool,
    state: State,
    /// The guest asked, and has not heard yet that it was accepted.
    accept: bool,
    ready: Ready,
    /// Toward the host.
    buffer: VecDeque<u8>,
    /// Bytes from the guest, bytes that left the buffer, and what the guest knows of the latter.
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    told: Wrapping<u32>,
    /// The guest asks for room that it may know of.
    update_asked: bool,
    /// Bytes to the guest, those it has used of them, and the room it has in all.
    sent: Wrapping<u32>,
    used: Wrapping<u32>,
    room: u32,
    /// We asked for room since we last heard.
    request_sent: bool,
    /// Directions the guest has ended; those the host has, and which of them the guest knows of.
    guest_ended: u32,
    host_ended: u32,
    host_ended_told: u32,
    /// The socket's two directions, as we ended them.
    shut_read: bool,
    shut_write: bool,
    /// The guest has forgotten it, having sent all: the rest is between us and the host.
    left: bool,
}

impl Connection {
    fn new(stream: UnixStream, token: u64, state: State) -> Self {
        Self {
            stream,
            token,
            queued: false,
            room_watched: false,
            state,
            accept: false,
            // Edges that came before are not told again.
            ready: Ready {
                readable: true,
                writable: true,
                gone: false,
            },
            buffer: VecDeque::new(),
            received: Wrapping(0),
            forwarded: Wrapping(0),
            told: Wrapping(0),
            update_asked: false,
            sent: Wrapping(0),
            used: Wrapping(0),
            room: 0,
            request_sent: false,
            guest_ended: 0,
            host_ended: 0,
            host_ended_told: 0,
            shut_read: false,
            shut_write: false,
            left: false,
        }
    }

    /// A client of the host asks the guest for a connection.
    pub(super) fn asking(stream: UnixStream, token: u64) -> Self {
        Self::new(stream, token, State::Asking { told: false })
    }

    /// The guest asked with `request`, and somebody listens.
    pub(super) fn accepted(stream: UnixStream, token: u64, request: &Header) -> Self {
        let mut connection = Self::new(stream, token, State::Established);
        connection.accept = true;
        connection.hear_credit(request);
        connection
    }

    /// Whether the guest knows of it, and so must hear of its end.
    pub(super) fn is_known(&self) -> bool {
        self.state != State::Asking { told: false } && !self.left
    }

    /// Whether only the host still knows of it.
    pub(super) fn has_left(&self) -> bool {
        self.left
    }

    /// The guest forgets it. One that closes gives up waiting for a slow host after some seconds; what
    /// it sent until then is still the host's. Whether there is any.
    pub(super) fn leave(&mut self) -> bool {
        self.left = self.guest_ended & NO_SEND != 0 && !self.buffer.is_empty();
        self.guest_ended = NEITHER;
        self.end_directions();
        self.left
    }

    /// Nothing goes either way any more: the guest is owed a last RST (section 5.10.6.5).
    pub(super) fn is_finished(&self) -> bool {
        self.guest_ended == NEITHER && self.buffer.is_empty()
    }

    /// The socket.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Whether bytes wait for room in the socket.
    pub(super) fn is_blocked(&self) -> bool {
        !self.ready.writable
    }

    /// Fills in what every packet says of our buffer; the guest then knows.
    pub(super) fn tell_credit(&mut self, header: &mut Header) {
        self.told = self.forwarded;
        self.update_asked = false;
        (header.buf_alloc, header.fwd_cnt) = (BUFFER_32, self.forwarded.0);
    }

    fn hear_credit(&mut self, header: &Header) {
        (self.room, self.used) = (header.buf_alloc, Wrapping(header.fwd_cnt));
        self.request_sent = false;
    }

    /// Bytes the guest has room for: none if its numbers cannot be.
    fn credit(&self) -> usize {
        let under_way = (self.sent - self.used).0;
        let credit = self.room.saturating_sub(under_way);
        usize::try_from(credit).unwrap_or(0)
    }

    /// Takes a packet of the guest; `host_port` is what a waiting client is told.
    pub(super) fn take(
        &mut self,
        header: &Header,
        payload: &[u8],
        host_port: u32,
        metrics: &VsockMetrics,
    ) -> Result<(), Cut> {
        self.hear_credit(header);
        match (header.op, self.state) {
            (op::RESPONSE, State::Asking { told: true }) => {
                self.state = State::Established;
                self.greet(host_port)
            }
            (op::RW, State::Established) => self.push(payload, metrics),
            (op::CREDIT_UPDATE, _) => Ok(()),
            (op::CREDIT_REQUEST, _) => {
                self.update_asked = true;
                Ok(())
            }
            (op::SHUTDOWN, State::Established) => {
                self.guest_ended |= header.flags & NEITHER;
                self.end_directions();
                Ok(())
            }
            _ => Err(Cut),
        }
    }

    fn greet(&self, host_port: u32) -> Result<(), Cut> {
        let line = format!("OK {host_port}\n");
        // The first bytes of a socket find room.
        match self.send(line.as_bytes()) {
            Ok(sent) if sent == line.len() => Ok(()),
            _ => Err(Cut),
        }
    }

    fn push(&mut self, payload: &[u8], metrics: &VsockMetrics) -> Result<(), Cut> {
        if self.guest_ended & NO_SEND != 0 || payload.len() > BUFFER - self.buffer.len() {
            return Err(Cut);
        }
        // Not more than the buffer is long.
        self.received += u32::try_from(payload.len()).map_err(|_| Cut)?;
        let mut rest = payload;
        // Commonly the socket takes all at once.
        if self.buffer.is_empty()
            && self.ready.writable
            && self.host_ended & NO_RECEIVE == 0
            && let Ok(sent) = self.send(payload)
        {
            self.count_forwarded(sent);
            metrics.tx_bytes_count.add_bytes(sent);
            rest = payload.get(sent..).unwrap_or_default();
        }
        self.buffer.extend(rest);
        // Tells why if it did not.
        self.flush(metrics);
        Ok(())
    }

    /// Epoll told of the socket.
    pub(super) fn on_ready(&mut self, ready: Ready, metrics: &VsockMetrics) -> Result<(), Cut> {
        self.ready.readable |= ready.readable;
        self.ready.writable |= ready.writable;
        self.ready.gone |= ready.gone;
        if self.ready.gone && self.state != State::Established {
            return Err(Cut);
        }
        self.flush(metrics);
        self.notice_end();
        Ok(())
    }

    /// A socket whose peer is gone ends both directions, once all it sent has been read.
    fn notice_end(&mut self) {
        let read_all = self.host_ended & NO_SEND != 0 || self.guest_ended & NO_RECEIVE != 0;
        if self.ready.gone && read_all {
            self.host_ended = NEITHER;
            self.discard();
        }
    }

    /// Gives the socket what it takes.
    fn flush(&mut self, metrics: &VsockMetrics) {
        while self.ready.writable && !self.buffer.is_empty() {
            if self.host_ended & NO_RECEIVE != 0 {
                self.discard();
                break;
            }
            let (front, _) = self.buffer.as_slices();
            match self.send(front) {
                Ok(sent) => {
                    self.forward(sent);
                    metrics.tx_bytes_count.add_bytes(sent);
                }
                Err(Errno::EAGAIN) => self.ready.writable = false,
                Err(Errno::EINTR) => {}
                Err(e) => {
                    log::debug!("a host socket takes no more: {e}");
                    metrics.tx_write_fails.increment();
                    metrics.tx_flush_fails.increment();
                    self.host_ended |= NO_RECEIVE;
                }
            }
        }
        self.end_directions();
    }

    fn send(&self, bytes: &[u8]) -> nix::Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        send(self.stream.as_raw_fd(), bytes, flags)
    }

    /// `len` bytes of the buffer are dealt with.
    fn forward(&mut self, len: usize) {
        self.buffer.drain(..len);
        if self.buffer.is_empty() {
            // There may be a thousand connections, and most do not need it again.
            self.buffer = VecDeque::new();
        }
        self.count_forwarded(len);
    }

    fn count_forwarded(&mut self, len: usize) {
        // Not more than the buffer is long.
        self.forwarded += u32::try_from(len).unwrap_or(0);
    }

    /// Nobody will read what is buffered.
    fn discard(&mut self) {
        self.forward(self.buffer.len());
    }

    /// Ends those directions of the socket that the guest has ended.
    fn end_directions(&mut self) {
        if self.guest_ended & NO_RECEIVE != 0 && !self.shut_read {
            self.shut_read = true;
            self.shutdown(Shutdown::Read);
        }
        if self.guest_ended & NO_SEND != 0 && !self.shut_write && self.buffer.is_empty() {
            self.shut_write = true;
            self.shutdown(Shutdown::Write);
        }
    }

    fn shutdown(&self, how: Shutdown) {
        if let Err(e) = self.stream.shutdown(how) {
            log::debug!("a host socket is gone: {e}");
        }
    }

    /// Whether the guest should hear of room in our buffer.
    fn update_due(&self) -> bool {
        let freed = (self.forwarded - self.told).0;
        let seems_used = (self.received - self.told).0;
        let worth = freed >= MIN_UPDATE || freed > 0 && self.buffer.is_empty();
        self.update_asked || worth && seems_used > BUFFER_32 / 2
    }

    /// Whether the socket may have bytes that the guest would take.
    fn is_readable(&self) -> bool {
        self.ready.readable
            && self.state == State::Established
            && self.host_ended & NO_SEND == 0
            && self.guest_ended & NO_RECEIVE == 0
    }

    /// Whether [`Self::next`] may have something.
    pub(super) fn wants_turn(&self) -> bool {
        let wants = self.accept
            || self.state == State::Asking { told: false }
            || self.update_due()
            || self.host_ended != self.host_ended_told
            || self.is_readable() && (self.credit() > 0 || !self.request_sent);
        wants && !self.left
    }

    /// The next packet for the guest, at most `payload` long: its payload is then there.
    pub(super) fn next(
        &mut self,
        payload: &mut [u8],
        metrics: &VsockMetrics,
    ) -> Result<Option<Outgoing>, Cut> {
        if let State::Asking { told } = &mut self.state
            && !*told
        {
            *told = true;
            return Ok(Some(Outgoing::control(op::REQUEST)));
        }
        if std::mem::take(&mut self.accept) {
            return Ok(Some(Outgoing::control(op::RESPONSE)));
        }
        if self.is_readable() {
            if self.credit() > 0 {
                if let Some(len) = self.read(payload, metrics)? {
                    let packet = Outgoing::control(op::RW);
                    return Ok(Some(Outgoing { len, ..packet }));
                }
            } else if !self.request_sent {
                self.request_sent = true;
                return Ok(Some(Outgoing::control(op::CREDIT_REQUEST)));
            }
        }
        if self.host_ended != self.host_ended_told {
            self.host_ended_told = self.host_ended;
            let flags = self.host_ended;
            let packet = Outgoing::control(op::SHUTDOWN);
            return Ok(Some(Outgoing { flags, ..packet }));
        }
        let due = self.update_due();
        Ok(due.then(|| Outgoing::control(op::CREDIT_UPDATE)))
    }

    /// Reads what the guest has room for; `None` if there is nothing.
    fn read(&mut self, payload: &mut [u8], metrics: &VsockMetrics) -> Result<Option<usize>, Cut> {
        let len = payload.len().min(self.credit());
        let payload = payload.get_mut(..len).unwrap_or_default();
        loop {
            match recv(self.stream.as_raw_fd(), payload, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => {
                    self.host_ended |= NO_SEND;
                    self.notice_end();
                    return Ok(None);
                }
                Ok(len) => {
                    self.sent += u32::try_from(len).map_err(|_| Cut)?;
                    return Ok(Some(len));
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    self.ready.readable = false;
                    return Ok(None);
                }
                Err(e) => {
                    log::debug!("cannot read a host socket: {e}");
                    metrics.rx_read_fails.increment();
                    return Err(Cut);
                }
            }
        }
    }
}
