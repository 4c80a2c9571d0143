//! One stream between a guest port and a Unix socket: credit in both directions (section 5.10.6.3), the two half closes,
//! and a bounded buffer toward the host. It knows neither rings nor epoll.

use super::metrics::VsockMetrics;
use super::packet::{Header, NEITHER, NO_RECEIVE, NO_SEND, op};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use std::collections::VecDeque;
use std::net::Shutdown;
use std::num::Wrapping;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

/// Bytes buffered per connection for a host that does not read. The guest learns this as the device's credit. Linux
/// sends no larger packet.
pub(super) const BUFFER: usize = 64 << 10;
const BUFFER_32: u32 = 64 << 10;
/// Smallest growth of the credit that is announced, so that a host that reads single bytes does not cause a packet
/// for each.
const MIN_UPDATE: u32 = 4 << 10;

/// The connection must be closed: the guest broke the protocol, or the host's socket failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A host client requested the connection; `requested` is set once the request was sent to the guest.
    Asking {
        requested: bool,
    },
    Established,
}

/// A packet for the guest without its addresses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outgoing {
    pub op: u16,
    pub flags: u32,
    /// Bytes of payload in the caller's buffer.
    pub len: usize,
}

impl Outgoing {
    /// Creates a packet without payload.
    pub(super) fn control(op: u16) -> Self {
        Self {
            op,
            flags: 0,
            len: 0,
        }
    }
}

/// Readiness of the socket. A flag stays set until a call finds the socket not ready.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    pub readable: bool,
    pub writable: bool,
    /// The peer neither reads nor writes any more.
    pub gone: bool,
}

pub(super) struct Connection {
    stream: UnixStream,
    /// Token of the socket in epoll.
    pub token: u64,
    /// True if the connection is queued for its turn toward the guest.
    pub queued: bool,
    /// True if epoll watches the socket for room.
    pub room_watched: bool,
    state: State,
    /// The guest requested the connection and has not received the acceptance yet.
    accept: bool,
    ready: Ready,
    /// Bytes for the host.
    buffer: VecDeque<u8>,
    /// Bytes received from the guest, bytes that left the buffer, and the latter as last announced to the guest.
    received: Wrapping<u32>,
    forwarded: Wrapping<u32>,
    reported: Wrapping<u32>,
    /// The guest asked for a credit update.
    update_asked: bool,
    /// Bytes sent to the guest, bytes that it has consumed, and the size of its buffer.
    sent: Wrapping<u32>,
    used: Wrapping<u32>,
    room: u32,
    /// A credit request was sent, and no packet has come since.
    request_sent: bool,
    /// Directions ended by the guest; directions ended by the host, and those of them that the guest knows of.
    guest_ended: u32,
    host_ended: u32,
    host_ended_sent: u32,
    /// Directions of the socket that were shut down.
    shut_read: bool,
    shut_write: bool,
    /// The guest reset the connection after sending all its data. Only the rest toward the host is left.
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
            // Edges before epoll watched the socket are not reported, so the socket counts as ready.
            ready: Ready {
                readable: true,
                writable: true,
                gone: false,
            },
            buffer: VecDeque::new(),
            received: Wrapping(0),
            forwarded: Wrapping(0),
            reported: Wrapping(0),
            update_asked: false,
            sent: Wrapping(0),
            used: Wrapping(0),
            room: 0,
            request_sent: false,
            guest_ended: 0,
            host_ended: 0,
            host_ended_sent: 0,
            shut_read: false,
            shut_write: false,
            left: false,
        }
    }

    /// Creates a connection that a host client requests from the guest.
    pub(super) fn asking(stream: UnixStream, token: u64) -> Self {
        Self::new(stream, token, State::Asking { requested: false })
    }

    /// Creates a connection that the guest requested by `request`, to a listener on the host.
    pub(super) fn accepted(stream: UnixStream, token: u64, request: &Header) -> Self {
        let mut connection = Self::new(stream, token, State::Established);
        connection.accept = true;
        connection.hear_credit(request);
        connection
    }

    /// Returns true if the guest knows of the connection and must be notified of its end.
    pub(super) fn is_known(&self) -> bool {
        self.state != State::Asking { requested: false } && !self.left
    }

    /// Returns true if only the host still uses the connection.
    pub(super) fn has_left(&self) -> bool {
        self.left
    }

    /// Handles a reset by the guest. Bytes it sent before are still delivered to the host; a guest that closes stops waiting
    /// for a slow host after some seconds. Returns true if there are such bytes.
    pub(super) fn leave(&mut self) -> bool {
        self.left = self.guest_ended & NO_SEND != 0 && !self.buffer.is_empty();
        self.guest_ended = NEITHER;
        self.end_directions();
        self.left
    }

    /// Returns true if both directions have ended, so that a last RST is due (section 5.10.6.5).
    pub(super) fn is_finished(&self) -> bool {
        self.guest_ended == NEITHER && self.buffer.is_empty()
    }

    /// Returns the socket.
    pub(super) fn stream(&self) -> &UnixStream {
        &self.stream
    }

    /// Returns true if bytes wait for room in the socket.
    pub(super) fn is_blocked(&self) -> bool {
        !self.ready.writable
    }

    /// Fills in the credit fields of `header` and records them as announced.
    pub(super) fn tell_credit(&mut self, header: &mut Header) {
        self.reported = self.forwarded;
        self.update_asked = false;
        (header.buf_alloc, header.fwd_cnt) = (BUFFER_32, self.forwarded.0);
    }

    fn hear_credit(&mut self, header: &Header) {
        (self.room, self.used) = (header.buf_alloc, Wrapping(header.fwd_cnt));
        self.request_sent = false;
    }

    /// Returns the free bytes of the guest's buffer, 0 if the guest's numbers are impossible.
    fn credit(&self) -> usize {
        let under_way = (self.sent - self.used).0;
        let credit = self.room.saturating_sub(under_way);
        usize::try_from(credit).unwrap_or(0)
    }

    /// Handles a packet from the guest. `host_port` is the port in the answer to a waiting client.
    pub(super) fn take(
        &mut self,
        header: &Header,
        payload: &[u8],
        host_port: u32,
        metrics: &VsockMetrics,
    ) -> Result<(), Cut> {
        self.hear_credit(header);
        match (header.op, self.state) {
            (op::RESPONSE, State::Asking { requested: true }) => {
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
        // A new socket has room for the first bytes.
        match self.send(line.as_bytes()) {
            Ok(sent) if sent == line.len() => Ok(()),
            _ => Err(Cut),
        }
    }

    fn push(&mut self, payload: &[u8], metrics: &VsockMetrics) -> Result<(), Cut> {
        if self.guest_ended & NO_SEND != 0 || payload.len() > BUFFER - self.buffer.len() {
            return Err(Cut);
        }
        // At most the length of the buffer.
        self.received += u32::try_from(payload.len()).map_err(|_| Cut)?;
        let mut rest = payload;
        // Usually the socket takes everything at once.
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
        // Fails with the reason if it did not.
        self.flush(metrics);
        Ok(())
    }

    /// Handles an event of the socket.
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

    /// Ends both directions if the peer is gone and everything it sent was read.
    fn notice_end(&mut self) {
        let read_all = self.host_ended & NO_SEND != 0 || self.guest_ended & NO_RECEIVE != 0;
        if self.ready.gone && read_all {
            self.host_ended = NEITHER;
            self.discard();
        }
    }

    /// Writes buffered bytes to the socket.
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
                    log::debug!("vsock: cannot write to a host socket: {e}");
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

    /// Removes `len` bytes from the buffer.
    fn forward(&mut self, len: usize) {
        self.buffer.drain(..len);
        if self.buffer.is_empty() {
            // There may be a thousand connections, most of which do not need the memory again.
            self.buffer = VecDeque::new();
        }
        self.count_forwarded(len);
    }

    fn count_forwarded(&mut self, len: usize) {
        // At most the length of the buffer.
        self.forwarded += u32::try_from(len).unwrap_or(0);
    }

    /// Drops the buffered bytes, which no reader will get.
    fn discard(&mut self) {
        self.forward(self.buffer.len());
    }

    /// Shuts down the directions of the socket that the guest has ended.
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
            log::debug!("vsock: cannot shut down a host socket: {e}");
        }
    }

    /// Returns true if a credit update is due.
    fn update_due(&self) -> bool {
        let freed = (self.forwarded - self.reported).0;
        let seems_used = (self.received - self.reported).0;
        let worth = freed >= MIN_UPDATE || freed > 0 && self.buffer.is_empty();
        self.update_asked || worth && seems_used > BUFFER_32 / 2
    }

    /// Returns true if the socket may have bytes that the guest has room for.
    fn is_readable(&self) -> bool {
        self.ready.readable
            && self.state == State::Established
            && self.host_ended & NO_SEND == 0
            && self.guest_ended & NO_RECEIVE == 0
    }

    /// Returns true if [`Self::next`] may have a packet.
    pub(super) fn wants_turn(&self) -> bool {
        let wants = self.accept
            || self.state == State::Asking { requested: false }
            || self.update_due()
            || self.host_ended != self.host_ended_sent
            || self.is_readable() && (self.credit() > 0 || !self.request_sent);
        wants && !self.left
    }

    /// Returns the next packet for the guest. Its payload is in the first bytes of `payload`.
    pub(super) fn next(
        &mut self,
        payload: &mut [u8],
        metrics: &VsockMetrics,
    ) -> Result<Option<Outgoing>, Cut> {
        if let State::Asking { requested } = &mut self.state
            && !*requested
        {
            *requested = true;
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
        if self.host_ended != self.host_ended_sent {
            self.host_ended_sent = self.host_ended;
            let flags = self.host_ended;
            let packet = Outgoing::control(op::SHUTDOWN);
            return Ok(Some(Outgoing { flags, ..packet }));
        }
        let due = self.update_due();
        Ok(due.then(|| Outgoing::control(op::CREDIT_UPDATE)))
    }

    /// Reads as much as the guest has room for; `None` if there is nothing to read.
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
                    log::debug!("vsock: cannot read from a host socket: {e}");
                    metrics.rx_read_fails.increment();
                    return Err(Cut);
                }
            }
        }
    }
}
