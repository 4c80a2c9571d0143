//! Tests of connection set-up, with the test as the guest's driver.

pub(super) use super::packet::*;
use super::router::{MAX_CLIENTS, MAX_CONNECTIONS, MAX_REFUSALS};
use super::*;
pub use crate::testing::*;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

const VERSION_1: u64 = 1 << 32;
const CID: u32 = 3;
/// Address of the guest's packets. The buffers for the device's packets are before it.
const OUTBOX: u64 = 0x8_0000;
/// Bytes of a receive buffer, as in Linux.
pub const INBOX: u32 = 4096;
/// Buffer size that the guest announces.
pub const GUEST_ROOM: u32 = 256 << 10;

/// A guest with a socket device, and the directory of its sockets.
pub struct Bench {
    pub guest: FakeGuest,
    pub event_loop: TestLoop,
    dir: tempfile::TempDir,
    rx: Ring,
    tx: Ring,
    pub events: Ring,
    /// Receive buffers offered so far.
    offered: u32,
}

/// Returns the buffer address of a descriptor.
fn inbox(head: u32) -> u64 {
    DATA + u64::from(head * INBOX)
}

pub fn config(dir: &tempfile::TempDir) -> resources::Vsock {
    resources::Vsock {
        guest_cid: CID,
        uds_path: dir.path().join("v"),
        vsock_id: None,
    }
}

impl Bench {
    /// Creates a guest that has offered receive buffers.
    pub fn new() -> Self {
        Self::on(TestLoop::spawn())
    }

    pub fn on(event_loop: TestLoop) -> Self {
        let mut bench = Self::without_buffers_on(event_loop);
        for _ in 0..8 {
            bench.offer();
        }
        bench
    }

    pub fn without_buffers() -> Self {
        Self::without_buffers_on(TestLoop::spawn())
    }

    fn without_buffers_on(event_loop: TestLoop) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let device = Box::new(Vsock::new(&config(&dir)).unwrap());
        let guest = FakeGuest::with(device, memory(), event_loop.clone());
        let mut bench = Self {
            guest,
            event_loop,
            dir,
            rx: Ring::new(0, 16),
            tx: Ring::new(1, 16),
            events: Ring::new(2, 16),
            offered: 0,
        };
        bench.restart();
        bench
    }

    pub fn restart(&mut self) {
        let rings = self.guest.start(VERSION_1, 16);
        [self.rx, self.tx, self.events] = rings.try_into().unwrap();
        self.offered = 0;
    }

    /// Returns the guest after save and restore: with a new device, which is paused, and the same memory and rings.
    pub fn restored(self) -> Self {
        lock(&self.guest.transport).pause();
        let state = lock(&self.guest.transport).save();
        let dir = tempfile::tempdir().unwrap();
        let device = Box::new(Vsock::new(&config(&dir)).unwrap());
        let mem = self.guest.mem.clone();
        let guest = FakeGuest::with(device, mem, self.event_loop.clone());
        lock(&guest.transport).restore(&state).unwrap();
        Self { guest, dir, ..self }
    }

    pub fn resume(&self) {
        lock(&self.guest.transport).resume();
    }

    /// Offers one more receive buffer.
    pub fn offer(&mut self) {
        let at = inbox(self.offered % 16);
        let head = self.rx.add(&self.guest.mem, &[(at, INBOX, true)]);
        assert_eq!(inbox(head.into()), at);
        self.offered += 1;
        self.guest.kick(0);
    }

    fn inbox(&self, (head, len): (u32, u32)) -> (Header, Vec<u8>) {
        let mut bytes = vec![0; len as usize];
        let at = GuestAddress(inbox(head));
        self.guest.mem.read_slice(&mut bytes, at).unwrap();
        let payload = bytes.split_off(HEADER);
        let header = Header::parse(bytes.as_slice().try_into().unwrap());
        assert_eq!(header.len as usize, payload.len());
        (header, payload)
    }

    /// Waits for a packet from the device.
    pub fn hear(&mut self) -> (Header, Vec<u8>) {
        let used = self.guest.wait_used(&mut self.rx);
        let packet = self.inbox(used);
        self.offer();
        packet
    }

    /// Returns the next packet from the device, which must be there already.
    pub fn hear_now(&mut self) -> Option<(Header, Vec<u8>)> {
        let used = self.rx.take_used(&self.guest.mem)?;
        let packet = self.inbox(used);
        self.offer();
        Some(packet)
    }

    pub fn hear_nothing(&mut self) {
        self.guest.settle();
        assert_eq!(self.hear_now(), None);
        assert_eq!(self.guest.read(0x70), 15);
    }

    /// Waits for a packet without payload.
    pub fn hears(&mut self, op: u16) -> Header {
        let (header, payload) = self.hear();
        assert_eq!((header.op, payload.len()), (op, 0), "{header:?}");
        header
    }

    /// Makes a packet available without waiting for the device. The packet may be invalid.
    pub fn post(&mut self, header: Header, payload: &[u8]) {
        let mut packet = header.to_bytes();
        packet.extend(payload);
        self.guest
            .mem
            .write_slice(&packet, GuestAddress(OUTBOX))
            .unwrap();
        let len = u32::try_from(packet.len()).unwrap();
        self.tx.add(&self.guest.mem, &[(OUTBOX, len, false)]);
        self.guest.kick(1);
    }

    /// Sends a packet, which may be invalid, and waits for the device.
    pub fn say(&mut self, header: Header, payload: &[u8]) {
        self.post(header, payload);
        assert_eq!(self.guest.wait_used(&mut self.tx).1, 0);
    }

    /// Makes descriptors available as a packet.
    fn say_raw(&mut self, buffers: &[(u64, u32, bool)]) {
        self.guest.request(&mut self.tx, buffers);
    }

    pub fn connect(&self) -> UnixStream {
        let stream = UnixStream::connect(self.dir.path().join("v")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub fn listen(&self, port: u32) -> UnixListener {
        UnixListener::bind(self.dir.path().join(format!("v_{port}"))).unwrap()
    }

    /// Returns an established connection from a host client to port 80.
    pub fn asked_by_host(&mut self) -> (Ports, UnixStream) {
        let mut client = self.connect();
        client.write_all(b"CONNECT 80\n").unwrap();
        let request = self.hears(op::REQUEST);
        let ports = Ports {
            host: request.src_port,
            guest: request.dst_port,
        };
        self.say(packet(ports, op::RESPONSE), &[]);
        let mut line = vec![0; format!("OK {}\n", ports.host).len()];
        client.read_exact(&mut line).unwrap();
        assert_eq!(line, format!("OK {}\n", ports.host).into_bytes());
        (ports, client)
    }

    /// Returns an established connection from the guest to a port.
    pub fn asked_by_guest(&mut self, ports: Ports) -> UnixStream {
        let listener = self.listen(ports.host);
        self.say(packet(ports, op::REQUEST), &[]);
        let response = self.hears(op::RESPONSE);
        assert_eq!(response.src_port, ports.host);
        assert_eq!(response.dst_port, ports.guest);
        let (stream, _) = listener.accept().unwrap();
        let patience = Some(Duration::from_secs(20));
        stream.set_read_timeout(patience).unwrap();
        stream
    }
}

/// Returns a packet from the guest, which has consumed nothing yet.
pub fn packet(ports: Ports, op: u16) -> Header {
    Header {
        src_cid: CID.into(),
        dst_cid: 2,
        src_port: ports.guest,
        dst_port: ports.host,
        kind: STREAM,
        op,
        buf_alloc: GUEST_ROOM,
        ..Header::default()
    }
}

/// Returns a packet from the guest with a payload.
pub fn data(ports: Ports, payload: &[u8]) -> Header {
    Header {
        len: u32::try_from(payload.len()).unwrap(),
        ..packet(ports, op::RW)
    }
}

/// Reads the end of the stream.
pub fn ends(stream: &mut UnixStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(e) if e.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("no end: {other:?}"),
    }
}

#[test]
fn a_taken_path_is_an_error_and_a_stale_socket_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(&dir);
    drop(Vsock::new(&config).unwrap());
    assert!(config.uds_path.exists(), "left behind, as clients know it");
    let _used = Vsock::new(&config).unwrap();
    let error = Vsock::new(&config).err().unwrap().to_string();
    let expected = format!(
        "{} is in the way of the vsock: remove it or choose another uds_path",
        config.uds_path.display()
    );
    assert_eq!(error, expected);
    let nowhere = resources::Vsock {
        uds_path: dir.path().join("no/v"),
        ..config
    };
    let error = Vsock::new(&nowhere).err().unwrap();
    assert!(matches!(error, VsockError::Bind { .. }), "{error}");
}

#[test]
fn data_flows_both_ways_for_a_host_client() {
    let mut bench = Bench::new();
    let mut cid = [0; 8];
    bench.guest.bus.read(WINDOW_BASE + 0x100, &mut cid);
    assert_eq!(u64::from_le_bytes(cid), u64::from(CID));
    let (ports, mut client) = bench.asked_by_host();
    assert_eq!(ports.guest, 80);
    client.write_all(b"ping").unwrap();
    let (header, payload) = bench.hear();
    assert_eq!((header.op, payload.as_slice()), (op::RW, &b"ping"[..]));
    assert_eq!((header.src_cid, header.dst_cid), (2, u64::from(CID)));
    bench.say(data(ports, b"pong"), b"pong");
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"pong");
}

#[test]
fn data_flows_both_ways_for_a_guest_client() {
    let mut bench = Bench::new();
    let ports = Ports {
        host: 1234,
        guest: 99,
    };
    let mut server = bench.asked_by_guest(ports);
    bench.say(data(ports, b"ping"), b"ping");
    let mut asked = [0; 4];
    server.read_exact(&mut asked).unwrap();
    assert_eq!(&asked, b"ping");
    server.write_all(b"pong").unwrap();
    let (header, payload) = bench.hear();
    assert_eq!((header.op, payload.as_slice()), (op::RW, &b"pong"[..]));
    assert_eq!((header.fwd_cnt, header.buf_alloc), (4, 64 << 10));
}

#[test]
fn a_guest_is_refused_without_a_listener() {
    let mut bench = Bench::new();
    let nobody = Ports {
        host: u32::MAX,
        guest: 1,
    };
    bench.say(packet(nobody, op::REQUEST), &[]);
    let reset = bench.hears(op::RST);
    assert_eq!((reset.src_port, reset.dst_port), (u32::MAX, 1));
    // A stale socket file, and a file that is not a socket.
    drop(bench.listen(5));
    std::fs::write(bench.dir.path().join("v_6"), "").unwrap();
    for host in [5, 6] {
        bench.say(packet(Ports { host, guest: 1 }, op::REQUEST), &[]);
        bench.hears(op::RST);
    }
}

#[test]
fn a_client_is_closed_if_the_guest_refuses() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    client.write_all(b"CONNECT 7\n").unwrap();
    let request = bench.hears(op::REQUEST);
    let ports = Ports {
        host: request.src_port,
        guest: 7,
    };
    bench.say(packet(ports, op::RST), &[]);
    ends(&mut client);
    // The guest learns that a client closed before the answer.
    let mut client = bench.connect();
    client.write_all(b"CONNECT 7\n").unwrap();
    bench.hears(op::REQUEST);
    drop(client);
    bench.hears(op::RST);
    bench.hear_nothing();
}

#[test]
fn a_client_with_an_invalid_request_is_closed() {
    let mut bench = Bench::new();
    for line in [
        "\n",
        "CONNECT\n",
        "CONNECT x\n",
        "CONNECT -1\n",
        "CONNECT 4294967296\n",
        "CONNECT 1 2\n",
        "LISTEN 1\n",
        "CONNECT 1                        \n",
        "0123456789012345678901234567890123456789",
        "\u{fffd}\n",
    ] {
        let mut client = bench.connect();
        client.write_all(line.as_bytes()).unwrap();
        ends(&mut client);
    }
    let mut client = bench.connect();
    client.write_all(b"CONNECT 1").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    ends(&mut client);
    bench.hear_nothing();
}

#[test]
fn a_request_may_come_in_pieces_and_with_data_after_it() {
    let mut bench = Bench::new();
    let mut client = bench.connect();
    for piece in [&b"conn"[..], b"ect  ", b"80"] {
        client.write_all(piece).unwrap();
        bench.hear_nothing();
    }
    client.write_all(b"\nhello").unwrap();
    let request = bench.hears(op::REQUEST);
    let ports = Ports {
        host: request.src_port,
        guest: 80,
    };
    bench.hear_nothing();
    bench.say(packet(ports, op::RESPONSE), &[]);
    assert_eq!(bench.hear().1, b"hello");
}

#[test]
fn silent_clients_do_not_lock_out_others() {
    let mut bench = Bench::new();
    more_descriptors();
    let mut silent: Vec<_> = (0..=MAX_CLIENTS).map(|_| bench.connect()).collect();
    ends(&mut silent[0]);
    silent[1].write_all(b"CONNECT 1\n").unwrap();
    bench.hears(op::REQUEST);
    bench.asked_by_host();
}

#[test]
fn invalid_packets_are_refused() {
    let mut bench = Bench::new();
    let ports = Ports { host: 1, guest: 2 };
    let good = packet(ports, op::RW);
    for bad in [
        Header { kind: 2, ..good },
        Header {
            kind: 2,
            op: op::REQUEST,
            ..good
        },
        Header { src_cid: 4, ..good },
        Header { dst_cid: 9, ..good },
        Header {
            src_cid: u64::MAX,
            dst_cid: 1 << 40,
            ..good
        },
        Header { op: 0, ..good },
        Header { op: 99, ..good },
        Header { len: 1, ..good },
        Header {
            len: u32::MAX,
            ..good
        },
        good,
        packet(ports, op::RESPONSE),
        packet(ports, op::SHUTDOWN),
        packet(ports, op::CREDIT_REQUEST),
    ] {
        bench.say(bad, &[]);
        let reset = bench.hears(op::RST);
        assert_eq!(reset.src_cid, bad.dst_cid);
        assert_eq!(reset.dst_cid, u64::from(CID));
        assert_eq!((reset.src_port, reset.dst_port), (1, 2));
        bench.say(Header { op: op::RST, ..bad }, &[]);
    }
    // Packets too short to be answered.
    bench.say_raw(&[(OUTBOX, 43, false)]);
    bench.say_raw(&[(OUTBOX, 44, true)]);
    bench.say_raw(&[(MEM as u64 - 4, 44, false)]);
    bench.hear_nothing();
}

#[test]
fn a_protocol_violation_closes_the_connection() {
    let mut bench = Bench::new();
    for header in [
        |p| packet(p, op::REQUEST),
        |p| packet(p, op::RESPONSE),
        |p| packet(p, 77),
        |p| Header {
            len: 5,
            ..packet(p, op::RW)
        },
    ] {
        let (ports, mut client) = bench.asked_by_host();
        bench.say(header(ports), b"four");
        let reset = bench.hears(op::RST);
        assert_eq!(reset.src_port, ports.host);
        ends(&mut client);
    }
    // A payload outside guest memory.
    let (ports, mut client) = bench.asked_by_host();
    let header = data(ports, b"four").to_bytes();
    let mem = bench.guest.mem.clone();
    mem.write_slice(&header, GuestAddress(OUTBOX)).unwrap();
    bench.say_raw(&[(OUTBOX, 44, false), (MEM as u64, 4, false)]);
    bench.hears(op::RST);
    ends(&mut client);
    // Bytes before the answer.
    let mut client = bench.connect();
    client.write_all(b"CONNECT 7\n").unwrap();
    let request = bench.hears(op::REQUEST);
    let ports = Ports {
        host: request.src_port,
        guest: 7,
    };
    bench.say(data(ports, b"four"), b"four");
    bench.hears(op::RST);
    ends(&mut client);
}

#[test]
fn a_guest_that_takes_no_refusals_is_not_served() {
    let mut bench = Bench::without_buffers();
    let bad = packet(Ports { host: 1, guest: 2 }, op::RW);
    for _ in 0..MAX_REFUSALS {
        bench.say(bad, &[]);
    }
    bench.post(bad, &[]);
    bench.guest.settle();
    assert_eq!(bench.tx.take_used(&bench.guest.mem), None);
    assert!(bench.event_loop.rests());
    for _ in 0..8 {
        bench.offer();
    }
    for _ in 0..=MAX_REFUSALS {
        bench.hears(op::RST);
    }
    bench.guest.wait_used(&mut bench.tx);
    bench.hear_nothing();
}

#[test]
fn buffers_that_are_too_small_are_returned_empty() {
    let mut bench = Bench::without_buffers();
    let mem = bench.guest.mem.clone();
    for (at, len, writable) in [
        (DATA, 44, true),
        (DATA, 4096, false),
        (MEM as u64 - 44, 4096, true),
    ] {
        bench.rx.add(&mem, &[(at, len, writable)]);
        bench.guest.kick(0);
    }
    bench.guest.settle();
    assert_eq!(bench.rx.take_used(&mem), None);
    let bad = packet(Ports { host: 1, guest: 2 }, op::RW);
    bench.say(bad, &[]);
    for len in [0, 0, 44] {
        assert_eq!(bench.guest.wait_used(&mut bench.rx).1, len);
    }
    assert_eq!(bench.guest.read(0x70), 15);
}

/// Raises the limit for a thousand sockets with both ends in this process.
fn more_descriptors() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
}

#[test]
fn a_thousand_connections_are_served_and_one_beyond_the_limit_is_refused() {
    more_descriptors();
    let mut bench = Bench::new();
    let mut all: Vec<_> = (0..MAX_CONNECTIONS)
        .map(|_| bench.asked_by_host())
        .collect();
    let mut late = bench.connect();
    late.write_all(b"CONNECT 80\n").unwrap();
    ends(&mut late);
    let listener = bench.listen(9);
    let ports = Ports { host: 9, guest: 9 };
    bench.say(packet(ports, op::REQUEST), &[]);
    bench.hears(op::RST);
    for (ports, client) in &mut all {
        client.write_all(&ports.host.to_le_bytes()).unwrap();
        let (header, payload) = bench.hear();
        assert_eq!(payload, header.src_port.to_le_bytes());
    }
    let (ports, mut client) = all.pop().unwrap();
    bench.say(packet(ports, op::RST), &[]);
    ends(&mut client);
    bench.say(packet(Ports { host: 9, guest: 9 }, op::REQUEST), &[]);
    bench.hears(op::RESPONSE);
    drop(listener);
}
