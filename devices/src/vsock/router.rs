//! All streams of one guest: which there are, whose turn it is, and the sockets behind them.
//!
//! The set of sockets changes while the loop runs, and the loop watches a fixed one: an epoll of our
//! own is the one descriptor it sees. Sockets are watched for edges, remembered in each connection, so
//! that a guest without buffers and a host that does not read cost nothing.

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

/// Most connections at once, as in the compatible monitor: each is a descriptor and up to 64 KiB.
pub(super) const MAX_CONNECTIONS: usize = 1023;
/// Most clients that have not said yet what they want. One more drives out the one that waits
/// longest, lest silent clients lock out all others.
pub(super) const MAX_CLIENTS: usize = 256;
/// Refusals that wait for room in the receiving ring, from which on no packet is taken from the guest.
/// The host adds at most one for each connection.
pub(super) const MAX_REFUSALS: usize = 256;
/// Clients accepted before others on the loop have their turn.
const ACCEPT_BUDGET: usize = 64;
/// Sockets told of in one call.
const EVENTS: usize = 128;
/// First of the ports that clients of the host get, as in the compatible monitor.
const FIRST_PORT: u32 = 1 << 30;
/// Token of the listening socket.
const LISTENER: u64 = 0;

/// A socket's edges; those of its room only while we wait for it, or each read of a client wakes us.
fn socket_event(token: u64, room: bool) -> EpollEvent {
    let mut edges = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP | EpollFlags::EPOLLET;
    edges.set(EpollFlags::EPOLLOUT, room);
    EpollEvent::new(edges, token)
}

fn listener_event() -> EpollEvent {
    // An edge, lest a client that cannot be accepted for want of descriptors wakes the loop forever.
    EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, LISTENER)
}

pub(super) struct Router {
    guest_cid: u64,
    uds_path: PathBuf,
    listener: UnixListener,
    epoll: Epoll,
    connections: HashMap<Ports, Connection>,
    /// Which connection a token of epoll is.
    tokens: HashMap<u64, Ports>,
    /// By token, so by age.
    clients: BTreeMap<u64, UnixStream>,
    next_token: u64,
    next_port: u32,
    /// The guest has yet to hear that its connections are cut.
    owes_reset: bool,
    /// Connections with something for the guest, each once.
    turns: VecDeque<Ports>,
    /// Refusals for the guest.
    refusals: VecDeque<Header>,
    /// What a packet carries, in either direction.
    payload: Vec<u8>,
    metrics: Arc<VsockMetrics>,
}

impl Router {
    /// Streams between the guest at `guest_cid` and the clients of `listener`, which is non-blocking
    /// and bound to `uds_path`.
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

    /// A driver is there.
    pub(super) fn start(&mut self) {
        self.payload.resize(BUFFER, 0);
    }

    /// Port of the next client.
    pub(super) fn next_port(&self) -> u32 {
        self.next_port
    }

    /// The guest was saved when `next_port` was the next, with connections that there are no more. Returns
    /// false, and does nothing, if that is no port of a client.
    pub(super) fn restore(&mut self, next_port: u32) -> bool {
        let possible = next_port & !(FIRST_PORT - 1) == FIRST_PORT;
        if possible {
            self.next_port = next_port;
            self.owes_reset = true;
        }
        possible
    }

    /// Whether the guest has yet to hear that its connections are cut.
    pub(super) fn owes_reset(&self) -> bool {
        self.owes_reset
    }

    /// The guest was told.
    pub(super) fn told_reset(&mut self) {
        self.owes_reset = false;
    }

    /// Another driver may come: all that was of the last one ends.
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

    /// The descriptor to wait on for all sockets.
    pub(super) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.epoll.0.try_clone()
    }

    /// Whether a packet may be taken from the guest.
    pub(super) fn has_room(&self) -> bool {
        self.refusals.len() < MAX_REFUSALS
    }

    /// Whether there may be something for the guest.
    pub(super) fn has_packets(&self) -> bool {
        !self.refusals.is_empty() || !self.turns.is_empty()
    }

    /// The buffer for the payload of a packet from the guest, if it may be that long.
    pub(super) fn payload(&mut self, len: usize) -> Option<&mut [u8]> {
        self.payload.get_mut(..len)
    }

    /// Takes a packet of the guest, of which the payload is in [`Self::payload`].
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
        // Only RW carries bytes.
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

    /// The guest sent a packet that says more than it carries.
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
        // A refusal of a refusal would never end.
        if header.op != op::RST {
            log::debug!("refused a packet of the guest: {header:?}");
            self.refusals.push_back(header.refusal(self.guest_cid));
        }
    }

    /// The guest asks for a connection.
    fn open(&mut self, request: &Header) {
        let opened = self.reach(request.dst_port).and_then(|stream| {
            let token = self.watch(&stream)?;
            Ok(Connection::accepted(stream, token, request))
        });
        match opened {
            Ok(connection) => self.add(request.ports(), connection),
            Err(e) => {
                log::debug!("no connection to port {}: {e}", request.dst_port);
                self.refuse(request);
            }
        }
    }

    /// Connects to whoever listens for the guest at `port`.
    fn reach(&mut self, port: u32) -> io::Result<UnixStream> {
        if !self.make_room() {
            return Err(io::Error::other("there are too many"));
        }
        let mut path: OsString = self.uds_path.clone().into();
        path.push(format!("_{port}"));
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
        // Done or refused at once: a listener whose queue is full does not make us wait.
        connect(socket.as_raw_fd(), &UnixAddr::new(path.as_os_str())?)?;
        Ok(socket.into())
    }

    /// Has epoll tell of `stream`; under which token.
    fn watch(&mut self, stream: &UnixStream) -> io::Result<u64> {
        let token = self.next_token;
        self.epoll
            .add(stream, socket_event(token, false))
            .inspect_err(|_| self.metrics.conn_event_fails.increment())?;
        self.next_token += 1;
        Ok(token)
    }

    /// Whether one more connection may be; one that the guest has left gives way.
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
        // The guest may take a port again that it has left.
        self.remove(ports);
        self.metrics.conns_added.increment();
        self.tokens.insert(connection.token, ports);
        self.connections.insert(ports, connection);
        self.schedule(ports);
    }

    /// Forgets a connection, whose socket is closed by that.
    fn remove(&mut self, ports: Ports) {
        if let Some(connection) = self.connections.remove(&ports) {
            self.metrics.conns_removed.increment();
            self.tokens.remove(&connection.token);
            if connection.queued {
                self.turns.retain(|turn| *turn != ports);
            }
        }
    }

    /// Takes a connection's turn away.
    fn unschedule(&mut self, ports: Ports) {
        self.turns.retain(|turn| *turn != ports);
        if let Some(connection) = self.connections.get_mut(&ports) {
            connection.queued = false;
        }
    }

    /// Forgets a connection and has the guest know.
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
            log::debug!("cut the connection of {ports:?}");
            self.metrics.conns_killed.increment();
            self.end(ports);
        }
    }

    /// After `done` with a connection.
    fn settle(&mut self, ports: Ports, done: Result<(), Cut>) {
        let done = done.and_then(|()| self.watch_room(ports));
        match (done, self.connections.get(&ports)) {
            (Err(Cut), _) => self.cut(ports),
            (Ok(()), Some(connection)) if connection.is_finished() => self.end(ports),
            _ => self.schedule(ports),
        }
    }

    /// Has epoll tell of room in a socket that had none, and no more once it has.
    fn watch_room(&mut self, ports: Ports) -> Result<(), Cut> {
        let Some(connection) = self.connections.get_mut(&ports) else {
            return Ok(());
        };
        let blocked = connection.is_blocked();
        if blocked != connection.room_watched {
            // This tells of room that came meanwhile, too.
            let mut event = socket_event(connection.token, blocked);
            if let Err(e) = self.epoll.modify(connection.stream(), &mut event) {
                log::warn!("cannot wait for a host socket: {e}");
                self.metrics.conn_event_fails.increment();
                return Err(Cut);
            }
            connection.room_watched = blocked;
        }
        Ok(())
    }

    /// Gives a connection a turn if it has something for the guest.
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
            // Not more than the buffer is long.
            len: u32::try_from(packet.len).unwrap_or(0),
            kind: STREAM,
            op: packet.op,
            flags: packet.flags,
            ..Header::default()
        }
    }

    /// The next packet for the guest with a payload of at most `room` bytes.
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

    /// A packet for the guest got lost in its memory, which is not where it said.
    pub(super) fn lost(&mut self, header: &Header) {
        let ports = Ports {
            host: header.src_port,
            guest: header.dst_port,
        };
        self.cut(ports);
    }

    /// Sockets are ready: all that is told in one call.
    pub(super) fn on_ready(&mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(e) => {
                log::debug!("cannot wait for host sockets: {e}");
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

    /// Accepts those clients that wait.
    fn accept(&mut self) {
        for _ in 0..ACCEPT_BUDGET {
            match self.listener.accept() {
                Ok((stream, _)) => self.greet(stream),
                Err(e) => match e.kind() {
                    io::ErrorKind::WouldBlock => return,
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionAborted => {}
                    _ => {
                        log::warn!("cannot accept a client of the vsock: {e}");
                        self.metrics.muxer_event_fails.increment();
                        return;
                    }
                },
            }
        }
        // More may wait: have the edge told again.
        let again = self.epoll.modify(&self.listener, &mut listener_event());
        if let Err(e) = again {
            log::error!("cannot wait for clients of the vsock: {e}");
        }
    }

    fn greet(&mut self, stream: UnixStream) {
        // Blocking or not: each call says that it does not wait.
        match self.watch(&stream) {
            Ok(token) => {
                self.clients.insert(token, stream);
                self.hear(token, false, false);
            }
            Err(e) => log::warn!("cannot serve a client of the vsock: {e}"),
        }
        while self.clients.len() > MAX_CLIENTS {
            log::debug!("closed a client of the vsock that said nothing");
            self.clients.pop_first();
        }
    }

    /// A client said something, or ended its side, or is gone.
    fn hear(&mut self, token: u64, ended: bool, gone: bool) {
        let Some(stream) = self.clients.get(&token) else {
            return;
        };
        match listen_to(stream) {
            Said::NotYet if !ended => {}
            Said::Connect(port) if !gone => self.ask(token, port),
            said => {
                log::debug!("closed a client of the vsock: {said:?}");
                self.clients.remove(&token);
            }
        }
    }

    /// A client asks for `port` of the guest.
    fn ask(&mut self, token: u64, port: u32) {
        let Some(stream) = self.clients.remove(&token) else {
            return;
        };
        if !self.make_room() {
            log::debug!("closed a client of the vsock: there are too many connections");
            return;
        }
        let ports = self.free_port(port);
        self.add(ports, Connection::asking(stream, token));
    }

    /// A port of the host that has no connection to `guest` yet.
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
