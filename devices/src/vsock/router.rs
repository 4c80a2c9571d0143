//! All streams of one guest: the connections, their turns, and the sockets behind them.
//!
//! The sockets change while the loop runs, but the loop watches a fixed set of descriptors: the router's own epoll
//! descriptor. Sockets are edge-triggered and their readiness is kept in each connection, so that a guest without buffers
//! or a host that does not read costs nothing.

use super::client::{Said, listen_to};
use super::connection::{BUFFER, Connection, Cut, Outgoing, Ready};
use super::metrics::VsockMetrics;
use super::packet::{HOST_CID, Header, Ports, STREAM, op};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;

/// Largest number of connections, as in Firecracker. Each is a descriptor and up to 64 KiB.
pub(super) const MAX_CONNECTIONS: usize = 1023;
/// Largest number of clients that have not sent a complete request. One more closes the oldest, so that silent clients
/// do not lock out others.
pub(super) const MAX_CLIENTS: usize = 256;
/// Number of undelivered refusals from which on no packet is taken from the guest. The host adds at most one per
/// connection.
pub(super) const MAX_REFUSALS: usize = 256;
/// Clients accepted per turn.
const ACCEPT_BUDGET: usize = 64;
/// Socket events handled per call.
const EVENTS: usize = 128;
/// First port for host clients, as in Firecracker.
const FIRST_PORT: u32 = 1 << 30;
/// Token of the listening socket.
const LISTENER: u64 = 0;

/// Returns the events of a socket. Room is watched only while needed, because each read of a client would report it.
fn socket_event(token: u64, room: bool) -> EpollEvent {
    let mut edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    edges.set(EpollFlags::EPOLLOUT, room);
    EpollEvent::new(edges, token)
}

fn listener_event() -> EpollEvent {
    // Edge-triggered: a client that cannot be accepted for lack of descriptors must not wake the loop for ever.
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, LISTENER)
}

pub(super) struct Router {
    guest_cid: u64,
    uds_path: PathBuf,
    listener: UnixListener,
    epoll: Epoll,
    connections: HashMap<Ports, Connection>,
    /// Connections by epoll token.
    tokens: HashMap<u64, Ports>,
    /// Clients by epoll token, and so by age.
    clients: BTreeMap<u64, UnixStream>,
    next_token: u64,
    next_port: u32,
    /// True if the guest must still be notified that its connections are closed.
    owes_reset: bool,
    /// Connections that may have a packet for the guest; each is listed once.
    turns: VecDeque<Ports>,
    /// Undelivered refusals.
    refusals: VecDeque<Header>,
    /// Payload of one packet in either direction.
    payload: Vec<u8>,
    metrics: Arc<VsockMetrics>,
}

impl Router {
    /// Creates the router of the guest at `guest_cid`. `listener` is non-blocking and bound to `uds_path`.
    pub(super) fn new(
        guest_cid: u64,
        uds_path: PathBuf,
        listener: UnixListener,
        metrics: Arc<VsockMetrics>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&listener, listener_event())?;
        Ok(Self {
            guest_cid,
            uds_path,
            listener,
            epoll,
            connections: HashMap::new(),
            tokens: HashMap::new(),
            clients: BTreeMap::new(),
            next_token: LISTENER + 1,
            next_port: FIRST_PORT,
            owes_reset: false,
            turns: VecDeque::new(),
            refusals: VecDeque::new(),
            payload: Vec::new(),
            metrics,
        })
    }

    /// Called when the driver is ready.
    pub(super) fn start(&mut self) {
        self.payload.resize(BUFFER, 0);
    }

    /// Returns the host port of the next client.
    pub(super) fn next_port(&self) -> u32 {
        self.next_port
    }

    /// Restores a guest that was saved with `next_port` and with connections that no longer exist. Returns false, without a
    /// change, if `next_port` is no port for clients.
    pub(super) fn restore(&mut self, next_port: u32) -> bool {
        let possible = next_port & !(FIRST_PORT - 1) == FIRST_PORT;
        if possible {
            self.next_port = next_port;
            self.owes_reset = true;
        }
        possible
    }

    /// Returns true if the guest must still be notified that its connections are closed.
    pub(super) fn owes_reset(&self) -> bool {
        self.owes_reset
    }

    /// Records that the guest was notified.
    pub(super) fn reset_was_reported(&mut self) {
        self.owes_reset = false;
    }

    /// Closes all connections before another driver takes over.
    pub(super) fn reset(&mut self) {
        self.owes_reset = false;
        let count = self.connections.len();
        self.metrics.conns_killed.add_bytes(count);
        self.metrics.conns_removed.add_bytes(count);
        self.connections.clear();
        self.tokens.clear();
        self.clients.clear();
        self.turns.clear();
        self.refusals.clear();
    }

    /// Returns a duplicate of the epoll descriptor, which stands for all sockets.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.epoll.0.try_clone()
    }

    /// Returns true if a packet may be taken from the guest.
    pub(super) fn has_room(&self) -> bool {
        self.refusals.len() < MAX_REFUSALS
    }

    /// Returns true if there may be a packet for the guest.
    pub(super) fn has_packets(&self) -> bool {
        !self.refusals.is_empty() || !self.turns.is_empty()
    }

    /// Returns the buffer for a payload of `len` bytes from the guest; `None` if it is too long.
    pub(super) fn payload(&mut self, len: usize) -> Option<&mut [u8]> {
        self.payload.get_mut(..len)
    }

    /// Handles a packet from the guest. Its payload is in [`Self::payload`].
    pub(super) fn take(&mut self, header: &Header) {
        self.metrics.tx_packets_count.increment();
        if !self.is_ours(header) {
            return self.refuse(header);
        }
        let ports = header.ports();
        let connection = self.connections.get_mut(&ports);
        let Some(connection) = connection.filter(|connection| !connection.has_left()) else {
            return match header.op {
                op::REQUEST => self.open(header),
                op::RST => {}
                _ => self.refuse(header),
            };
        };
        if header.op == op::RST {
            return match connection.leave() {
                true => self.unschedule(ports),
                false => self.remove(ports),
            };
        }
        // Only RW has a payload.
        let len = match header.op {
            op::RW => usize::try_from(header.len).unwrap_or(usize::MAX),
            _ => 0,
        };
        let taken = match self.payload.get(..len) {
            Some(payload) => connection.take(header, payload, ports.host, &self.metrics),
            None => Err(Cut),
        };
        self.settle(ports, taken);
    }

    /// Handles a packet whose header announces more bytes than the packet has.
    pub(super) fn take_malformed(&mut self, header: &Header) {
        let connection = self.connections.get(&header.ports());
        match connection.is_some_and(|c| !c.has_left()) && self.is_ours(header) {
            true => self.cut(header.ports()),
            false => self.refuse(header),
        }
    }

    fn is_ours(&self, header: &Header) -> bool {
        header.kind == STREAM && header.src_cid == self.guest_cid && header.dst_cid == HOST_CID
    }

    fn refuse(&mut self, header: &Header) {
        // An answer to an RST would never end.
        if header.op != op::RST {
            log::debug!("vsock: refused a packet from the guest: {header:?}");
            self.refusals.push_back(header.refusal(self.guest_cid));
        }
    }

    /// Handles a connection request of the guest.
    fn open(&mut self, request: &Header) {
        let opened = self.reach(request.dst_port).and_then(|stream| {
            let token = self.watch(&stream)?;
            Ok(Connection::accepted(stream, token, request))
        });
        match opened {
            Ok(connection) => self.add(request.ports(), connection),
            Err(e) => {
                log::debug!("vsock: cannot connect to port {}: {e}", request.dst_port);
                self.refuse(request);
            }
        }
    }

    /// Connects to the host's listener for `port`.
    fn reach(&mut self, port: u32) -> io::Result<UnixStream> {
        if !self.make_room() {
            return Err(io::Error::other("too many connections"));
        }
        let mut path: OsString = self.uds_path.clone().into();
        path.push(format!("_{port}"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // Connects or fails at once: the socket is non-blocking, and a full backlog does not make it wait.
        connect(socket.as_raw_fd(), &UnixAddr::new(path.as_os_str())?)?;
        Ok(socket.into())
    }

    /// Watches `stream` with epoll and returns its token.
    fn watch(&mut self, stream: &UnixStream) -> io::Result<u64> {
        let token = self.next_token;
        self.epoll
            .add(stream, socket_event(token, false))
            .inspect_err(|_| self.metrics.conn_event_fails.increment())?;
        self.next_token += 1;
        Ok(token)
    }

    /// Returns true if a connection may be added. A connection that the guest has reset is closed for it.
    fn make_room(&mut self) -> bool {
        if self.connections.len() < MAX_CONNECTIONS {
            return true;
        }
        let mut all = self.connections.iter();
        let left = all.find(|(_, connection)| connection.has_left());
        let left = left.map(|(ports, _)| *ports);
        if let Some(ports) = left {
            self.remove(ports);
        }
        left.is_some()
    }

    fn add(&mut self, ports: Ports, connection: Connection) {
        // The guest may reuse a port that it has reset.
        self.remove(ports);
        self.metrics.conns_added.increment();
        self.tokens.insert(connection.token, ports);
        self.connections.insert(ports, connection);
        self.schedule(ports);
    }

    /// Removes a connection, which closes its socket.
    fn remove(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.remove(&ports) {
            self.metrics.conns_removed.increment();
            self.tokens.remove(&connection.token);
            if connection.queued {
                self.turns.retain(|turn| *turn != ports);
            }
        }
    }

    /// Removes a connection from the turns.
    fn unschedule(&mut self, ports: Ports) {
        self.turns.retain(|turn| *turn != ports);
        if let Some(connection) = self.connections.get_mut(&ports) {
            connection.queued = false;
        }
    }

    /// Removes a connection and sends the guest an RST if it knows of it.
    fn end(&mut self, ports: Ports) {
        let known = self.connections.get(&ports);
        if known.is_some_and(Connection::is_known) {
            let reset = self.header(ports, &Outgoing::control(op::RST));
            self.refusals.push_back(reset);
        }
        self.remove(ports);
    }

    fn cut(&mut self, ports: Ports) {
        if self.connections.contains_key(&ports) {
            log::debug!("vsock: closed the connection of {ports:?}");
            self.metrics.conns_killed.increment();
            self.end(ports);
        }
    }

    /// Updates epoll and turns after an operation on a connection; closes it if `done` is an error.
    fn settle(&mut self, ports: Ports, done: Result<(), Cut>) {
        let done = done.and_then(|()| self.watch_room(ports));
        match (done, self.connections.get(&ports)) {
            (Err(Cut), _) => self.cut(ports),
            (Ok(()), Some(connection)) if connection.is_finished() => self.end(ports),
            _ => self.schedule(ports),
        }
    }

    /// Watches a socket for room while bytes wait for it.
    fn watch_room(&mut self, ports: Ports) -> Result<(), Cut> {
        let Some(connection) = self.connections.get_mut(&ports) else {
            return Ok(());
        };
        let blocked = connection.is_blocked();
        if blocked != connection.room_watched {
            // The change reports room that exists already, too.
            let mut event = socket_event(connection.token, blocked);
            if let Err(e) = self.epoll.modify(connection.stream(), &mut event) {
                log::warn!("vsock: cannot watch a host socket: {e}");
                self.metrics.conn_event_fails.increment();
                return Err(Cut);
            }
            connection.room_watched = blocked;
        }
        Ok(())
    }

    /// Queues a connection for its turn if it may have a packet for the guest.
    fn schedule(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.get_mut(&ports)
            && !connection.queued
            && connection.wants_turn()
        {
            connection.queued = true;
            self.turns.push_back(ports);
        }
    }

    fn header(&self, ports: Ports, packet: &Outgoing) -> Header {
        Header {
            src_cid: HOST_CID,
            dst_cid: self.guest_cid,
            src_port: ports.host,
            dst_port: ports.guest,
            // At most the length of the buffer.
            len: u32::try_from(packet.len).unwrap_or(0),
            kind: STREAM,
            op: packet.op,
            flags: packet.flags,
            ..Header::default()
        }
    }

    /// Returns the next packet for the guest, with a payload of at most `room` bytes.
    pub(super) fn next(&mut self, room: usize) -> Option<(Header, &[u8])> {
        let (header, len) = self.next_header(room)?;
        self.metrics.rx_packets_count.increment();
        self.metrics.rx_bytes_count.add_bytes(len);
        Some((header, self.payload.get(..len).unwrap_or_default()))
    }

    fn next_header(&mut self, room: usize) -> Option<(Header, usize)> {
        if let Some(refusal) = self.refusals.pop_front() {
            return Some((refusal, 0));
        }
        while let Some(ports) = self.turns.pop_front() {
            let Some(connection) = self.connections.get_mut(&ports) else {
                continue;
            };
            connection.queued = false;
            let room = room.min(self.payload.len());
            let payload = self.payload.get_mut(..room).unwrap_or_default();
            match connection.next(payload, &self.metrics) {
                Ok(Some(packet)) => {
                    let mut credit = Header::default();
                    connection.tell_credit(&mut credit);
                    self.schedule(ports);
                    let header = Header {
                        buf_alloc: credit.buf_alloc,
                        fwd_cnt: credit.fwd_cnt,
                        ..self.header(ports, &packet)
                    };
                    return Some((header, packet.len));
                }
                Ok(None) => {}
                Err(Cut) => {
                    self.cut(ports);
                    if let Some(refusal) = self.refusals.pop_front() {
                        return Some((refusal, 0));
                    }
                }
            }
        }
        None
    }

    /// Closes the connection of a packet that could not be written to guest memory.
    pub(super) fn lost(&mut self, header: &Header) {
        let ports = Ports {
            host: header.src_port,
            guest: header.dst_port,
        };
        self.cut(ports);
    }

    /// Handles all socket events.
    pub(super) fn on_ready(&mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(e) => {
                log::debug!("vsock: cannot wait for host sockets: {e}");
                self.metrics.muxer_event_fails.increment();
                return;
            }
        };
        for event in events.iter().take(count) {
            match event.data() {
                LISTENER => self.accept(),
                token => self.on_socket(token, event.events()),
            }
        }
    }

    fn on_socket(&mut self, token: u64, events: EpollFlags) {
        let gone = events.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
        let ended = gone || events.contains(EpollFlags::EPOLLRDHUP);
        let Some(ports) = self.tokens.get(&token).copied() else {
            return self.hear(token, ended, gone);
        };
        let ready = Ready {
            readable: ended || events.contains(EpollFlags::EPOLLIN),
            writable: gone || events.contains(EpollFlags::EPOLLOUT),
            gone,
        };
        if let Some(connection) = self.connections.get_mut(&ports) {
            let done = connection.on_ready(ready, &self.metrics);
            self.settle(ports, done);
        }
    }

    /// Accepts waiting clients.
    fn accept(&mut self) {
        for _ in 0..ACCEPT_BUDGET {
            match self.listener.accept() {
                Ok((stream, _)) => self.greet(stream),
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        log::warn!("vsock: cannot accept a client: {e}");
                        self.metrics.muxer_event_fails.increment();
                        return;
                    }
                },
            }
        }
        // More clients may wait, so the edge must be reported again.
        let again = self.epoll.modify(&self.listener, &mut listener_event());
        if let Err(e) = again {
            log::error!("vsock: cannot watch the listener: {e}");
        }
    }

    fn greet(&mut self, stream: UnixStream) {
        // The stream may stay blocking: each call passes MSG_DONTWAIT.
        match self.watch(&stream) {
            Ok(token) => {
                self.clients.insert(token, stream);
                self.hear(token, false, false);
            }
            Err(e) => log::warn!("vsock: cannot watch a client: {e}"),
        }
        while self.clients.len() > MAX_CLIENTS {
            log::debug!("vsock: closed a client that sent no request");
            self.clients.pop_first();
        }
    }

    /// Reads from a client that is readable, has ended its side, or is gone.
    fn hear(&mut self, token: u64, ended: bool, gone: bool) {
        let Some(stream) = self.clients.get(&token) else {
            return;
        };
        match listen_to(stream) {
            Said::NotYet if !ended => {}
            Said::Connect(port) if !gone => self.ask(token, port),
            said => {
                log::debug!("vsock: closed a client: {said:?}");
                self.clients.remove(&token);
            }
        }
    }

    /// Handles a client's request for `port` of the guest.
    fn ask(&mut self, token: u64, port: u32) {
        let Some(stream) = self.clients.remove(&token) else {
            return;
        };
        if !self.make_room() {
            log::debug!("vsock: closed a client: too many connections");
            return;
        }
        let ports = self.free_port(port);
        self.add(ports, Connection::asking(stream, token));
    }

    /// Returns a host port without a connection to `guest`.
    fn free_port(&mut self, guest: u32) -> Ports {
        loop {
            let host = self.next_port;
            self.next_port = FIRST_PORT | (host.wrapping_add(1) % FIRST_PORT);
            let ports = Ports { host, guest };
            // There are far fewer connections than ports.
            if !self.connections.contains_key(&ports) {
                return ports;
            }
        }
    }
}
