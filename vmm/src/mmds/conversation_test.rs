//! Conversations with another TCP/IP implementation (smoltcp), over a wire that loses and reorders frames.

use super::Mmds;
use super::testing::{GUEST_MAC, TestClock, service};
use crate::testing::properties;
use devices::net::responder::{HEAD, Responder};
use resources::{MmdsConfig, MmdsVersion};
use serde_json::json;
use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium};
use smoltcp::socket::tcp;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr, Ipv4Address, Ipv4Cidr};
use std::collections::VecDeque;
use std::time::Duration;

/// The guest's card: frames from and to its TCP/IP stack.
struct Card {
    mtu: usize,
    to_guest: VecDeque<Vec<u8>>,
    from_guest: VecDeque<Vec<u8>>,
}

struct Arrived(Vec<u8>);

impl smoltcp::phy::RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        read(&self.0)
    }
}

struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl smoltcp::phy::TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, write: F) -> R {
        let mut frame = vec![0; len];
        let result = write(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Card {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.to_guest.pop_front()?;
        Some((Arrived(frame), Leaving(&mut self.from_guest)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        Some(Leaving(&mut self.from_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu;
        // Like a guest with offload: it leaves TCP's checksum open, and verifies those that it receives.
        capabilities.checksum.tcp = Checksum::Rx;
        capabilities
    }
}

/// Faults of the wire, in percent of the frames.
#[derive(Clone, Copy, Debug)]
struct Wire {
    lost: u64,
    doubled: u64,
    late: u64,
    seed: u64,
}

impl Wire {
    const GOOD: Self = Self {
        lost: 0,
        doubled: 0,
        late: 0,
        seed: 1,
    };

    fn happens(&mut self, percent: u64) -> bool {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % 100 < percent
    }

    /// Puts `frame` on the wire.
    fn carry(&mut self, frame: Vec<u8>, queue: &mut VecDeque<Vec<u8>>) {
        if self.happens(self.lost) {
            return;
        }
        if self.happens(self.doubled) {
            queue.push_back(frame.clone());
        }
        match self.happens(self.late) {
            true => queue.push_front(frame),
            false => queue.push_back(frame),
        }
    }
}

struct Guest {
    card: Card,
    service: Box<dyn Responder>,
    clock: TestClock,
    wire: Wire,
    interface: Interface,
    sockets: SocketSet<'static>,
    on_the_way: VecDeque<Vec<u8>>,
    timeouts: usize,
}

fn instant(clock: &TestClock) -> Instant {
    Instant::from_micros(i64::try_from(clock.now().as_micros()).unwrap())
}

impl Guest {
    fn new(mmds: &Mmds, clock: TestClock, mtu: usize, wire: Wire) -> Self {
        let mut card = Card {
            mtu,
            to_guest: VecDeque::new(),
            from_guest: VecDeque::new(),
        };
        let mut config = Config::new(EthernetAddress(GUEST_MAC).into());
        config.random_seed = wire.seed;
        let mut interface = Interface::new(config, &mut card, instant(&clock));
        // As in real guests, the service's address is on the link.
        interface.update_ip_addrs(|addresses| {
            let address = Ipv4Cidr::new(Ipv4Address::new(169, 254, 1, 2), 16);
            addresses.push(IpCidr::Ipv4(address)).unwrap();
        });
        Self {
            card,
            service: mmds.responder(),
            clock,
            wire,
            interface,
            sockets: SocketSet::new(Vec::new()),
            on_the_way: VecDeque::new(),
            timeouts: 0,
        }
    }

    fn socket(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    fn connect(&mut self, port: u16, receive_buffer: usize) -> SocketHandle {
        let buffer = |len| tcp::SocketBuffer::new(vec![0; len]);
        let socket = tcp::Socket::new(buffer(receive_buffer), buffer(2048));
        let handle = self.sockets.add(socket);
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        let service = (Ipv4Address::new(169, 254, 169, 254), 80);
        socket
            .connect(self.interface.context(), service, port)
            .unwrap();
        handle
    }

    /// One step: frames move, or the clock advances.
    fn step(&mut self) {
        let polled = self
            .interface
            .poll(instant(&self.clock), &mut self.card, &mut self.sockets);
        let mut moved = polled == PollResult::SocketStateChanged;
        for frame in std::mem::take(&mut self.card.from_guest) {
            self.wire.carry(frame, &mut self.on_the_way);
        }
        while let Some(frame) = self.on_the_way.pop_front() {
            moved = true;
            if self.service.takes(&frame[..frame.len().min(HEAD)]) {
                self.service.receive(&frame);
            }
        }
        let mut buffer = [0; 1514];
        while let Some(len) = self.service.next_frame(&mut buffer) {
            assert!(len <= self.card.mtu, "a frame longer than the guest takes");
            self.wire
                .carry(buffer[..len].to_vec(), &mut self.card.to_guest);
        }
        if moved || !self.card.to_guest.is_empty() {
            return;
        }
        let guests = self
            .interface
            .poll_delay(instant(&self.clock), &self.sockets);
        let guests = guests.map(Duration::from);
        let services = self.service.deadline();
        let wait = guests.into_iter().chain(services).min();
        self.clock
            .advance(wait.unwrap_or_default().max(Duration::from_millis(1)));
        if services.is_some_and(|time| time <= wait.unwrap_or_default()) {
            self.service.poll();
            self.timeouts += 1;
        }
    }

    /// Sends `request` and returns head and body of the whole response.
    fn ask(&mut self, handle: SocketHandle, request: &str) -> (String, String) {
        let mut unsent = request.as_bytes();
        let mut response = Vec::new();
        for step in 0.. {
            assert!(step < 20_000, "no answer to {request}");
            self.step();
            let socket = self.socket(handle);
            if socket.can_send() && !unsent.is_empty() {
                let sent = socket.send_slice(unsent).unwrap();
                unsent = &unsent[sent..];
            }
            // Small reads, so that the window closes sometimes.
            if socket.can_recv() && step % 3 == 0 {
                let mut bytes = [0; 300];
                let len = socket.recv_slice(&mut bytes).unwrap();
                response.extend_from_slice(&bytes[..len]);
            }
            let text = String::from_utf8_lossy(&response);
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let (_, len) = head.split_once("Content-Length: ").unwrap();
                if body.len() >= len.parse().unwrap() {
                    return (head.to_owned(), body.to_owned());
                }
            }
        }
        (String::new(), String::new())
    }

    fn close(&mut self, handle: SocketHandle) {
        self.socket(handle).close();
        for _ in 0..20_000 {
            self.step();
            if !self.socket(handle).is_active()
                || self.socket(handle).state() == tcp::State::TimeWait
            {
                return;
            }
        }
        panic!(
            "the connection does not end: {}",
            self.socket(handle).state()
        );
    }
}

fn second_version() -> (Mmds, TestClock, String) {
    let (mmds, clock) = service();
    mmds.configure(&MmdsConfig {
        version: MmdsVersion::V2,
        network_interfaces: vec!["e0".into()],
        ipv4_address: None,
        imds_compat: false,
    });
    let long: String = (0..2000).map(|n| format!("{n:05}")).collect();
    mmds.put(json!({"latest": {"long": long, "id": "i-1"}}))
        .unwrap();
    (mmds, clock, long)
}

fn converse(mtu: usize, receive_buffer: usize, wire: Wire) -> Guest {
    let (mmds, clock, long) = second_version();
    let mut guest = Guest::new(&mmds, clock, mtu, wire);
    let handle = guest.connect(40_000, receive_buffer);
    let put = "PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 21600\r\n\r\n";
    let (head, token) = guest.ask(handle, put);
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nX-metadata-token: {token}\r\n\r\n");
    assert_eq!(guest.ask(handle, &get("/latest/long")).1, long);
    assert_eq!(guest.ask(handle, &get("/latest/id")).1, "i-1");
    let (head, _) = guest.ask(handle, "GET /latest/id HTTP/1.1\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 401 "), "{head}");
    guest.close(handle);
    // A second connection, even from the same port, which the service closes.
    let handle = guest.connect(40_001, receive_buffer);
    let closing = get("/latest/long").replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n");
    assert_eq!(guest.ask(handle, &closing).1, long);
    guest.close(handle);
    guest
}

#[test]
fn a_guest_gets_a_token_and_its_data() {
    let mut guest = converse(1514, 65_000, Wire::GOOD);
    assert_eq!(guest.timeouts, 0, "nothing had to be sent again");
    assert_eq!(guest.service.deadline(), None);
}

#[test]
fn a_guest_with_small_buffers_is_served() {
    for (mtu, receive_buffer) in [(1514, 300), (1514, 2000), (590, 1000), (300, 5000)] {
        converse(mtu, receive_buffer, Wire::GOOD);
    }
}

#[test]
fn loss_and_reordering_only_delay() {
    let wires = (0..10_u64, 0..20_u64, 0..30_u64, 1..u64::MAX);
    let sizes = (200..1515_usize, 200..20_000_usize);
    let run = |((lost, doubled, late, seed), (mtu, receive_buffer))| {
        converse(
            mtu,
            receive_buffer,
            Wire {
                lost,
                doubled,
                late,
                seed,
            },
        );
        Ok(())
    };
    properties().run(&(wires, sizes), run).unwrap();
}
