use super::super::Mmds;
use super::super::http::MAX_REQUEST;
use super::super::tcp::{ACK, PSH, Seq};
use super::super::testing::*;
use super::*;
use crate::testing::properties;
use devices::net::responder::{HEAD, Responder as _};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

const BUFFER: usize = 65550;
/// First sequence number of the test's clients.
const ISN: Seq = Seq(u32::MAX - 3);

/// A card that the test drives by hand.
struct Card {
    mmds: Mmds,
    clock: TestClock,
    responder: Responder,
}

impl Card {
    fn new() -> Self {
        let (mmds, clock) = service();
        let text = "x".repeat(5000);
        mmds.put(json!({"a": "b", "long": text})).unwrap();
        let responder = Responder::new(mmds.0.clone());
        Self {
            mmds,
            clock,
            responder,
        }
    }

    /// Offers a frame to the service as the card does. Returns whether the service took it.
    fn offer(&mut self, frame: &[u8]) -> bool {
        let taken = self.responder.takes(&frame[..frame.len().min(HEAD)]);
        if taken {
            self.responder.receive(frame);
        }
        taken
    }

    fn frames(&mut self) -> Vec<Vec<u8>> {
        let mut buffer = vec![0; BUFFER];
        let next = || {
            let len = self.responder.next_frame(&mut buffer)?;
            Some(buffer[..len].to_vec())
        };
        std::iter::from_fn(next).take(1000).collect()
    }

    fn send(&mut self, header: &Header, payload: &[u8]) -> Vec<Vec<u8>> {
        assert!(self.offer(&segment_frame(header, payload)));
        self.frames()
    }

    /// Opens a connection. Returns the first sequence number of the service's data.
    fn connect(&mut self, port: u16) -> Seq {
        let syn = Header {
            mss: Some(1000),
            ..to_service(port, ISN, Seq(0), SYN)
        };
        let frames = self.send(&syn, b"");
        let answer = segment_of(frames.last().unwrap());
        assert_eq!((answer.flags, answer.ack), (SYN | ACK, ISN.plus(1)));
        assert_eq!((answer.source_port, answer.port), (80, port));
        let start = answer.seq.plus(1);
        assert!(
            self.send(&to_service(port, ISN.plus(1), start, ACK), b"")
                .is_empty()
        );
        start
    }

    fn count(&self, metric: &str) -> u64 {
        counted(&self.mmds, metric)
    }

    /// Polls `times` times, each time when it is due.
    fn wait(&mut self, times: usize) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for _ in 0..times {
            let Some(time) = self.responder.deadline() else {
                break;
            };
            self.clock.advance(time);
            self.responder.poll();
            frames.extend(self.frames());
        }
        frames
    }
}

fn arp_request(target: Ipv4Addr) -> Vec<u8> {
    let mut packet = vec![0, 1, 8, 0, 6, 4, 0, 1];
    packet.extend(GUEST_MAC);
    packet.extend(GUEST.octets());
    packet.extend([0; 6]);
    packet.extend(target.octets());
    frame(ethernet::ARP, &packet)
}

#[test]
fn the_service_answers_arp() {
    let mut card = Card::new();
    assert!(!card.offer(&arp_request(GUEST)), "for somebody else");
    assert!(card.offer(&arp_request(SERVICE)));
    let [reply] = &card.frames()[..] else {
        panic!("one reply");
    };
    assert_eq!(reply.len(), 42);
    assert_eq!(reply[..6], GUEST_MAC);
    assert_eq!(reply[6..12], [6, 1, 0x23, 0x45, 0x67, 1]);
    assert_eq!(reply[20..22], [0, 2]);
    assert_eq!(reply[28..32], [169, 254, 169, 254]);
    assert!(card.frames().is_empty());
    let (count, bytes) = (card.count("tx_frames"), card.count("tx_bytes"));
    assert_eq!((card.count("rx_accepted"), count, bytes), (1, 1, 42));
}

#[test]
fn frames_for_others_are_left_to_the_tap() {
    let mut card = Card::new();
    let good = segment_frame(&to_service(1, ISN, Seq(0), SYN), b"");
    let mut tagged = good.clone();
    tagged.splice(12..12, [0x81, 0, 0, 1]);
    let mut other_address = good.clone();
    other_address[33] = 253;
    let mut other_protocol = good.clone();
    other_protocol[12] = 0x86;
    let mut other_version = good.clone();
    other_version[14] = 0x65;
    for frame in [&tagged, &other_address, &other_protocol, &other_version] {
        assert!(!card.offer(frame));
    }
    for len in 0..good.len().min(34) {
        assert!(!card.offer(&good[..len]));
    }
    assert_eq!(card.count("rx_accepted"), 0);
    assert!(card.responder.deadline().is_none());
}

#[test]
fn packets_other_than_tcp_are_dropped() {
    let mut card = Card::new();
    let ip = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut frame = segment_frame(&to_service(1, ISN, Seq(0), SYN), b"");
        change(&mut frame);
        frame
    };
    let unusual = [
        ip(&|frame| frame[23] = 17),
        ip(&|frame| frame[26] = 224),
        ip(&|frame| frame[26..30].fill(0)),
        ip(&|frame| frame[26..30].copy_from_slice(&SERVICE.octets())),
    ];
    let broken = [
        ip(&|frame| frame[20] = 0x20),
        ip(&|frame| frame[46] = 0x40),
        ip(&|frame| frame.truncate(36)),
    ];
    for frame in unusual.iter().chain(&broken) {
        assert!(card.offer(frame));
        assert!(card.frames().is_empty());
    }
    assert_eq!(card.count("rx_accepted"), 7);
    assert_eq!(card.count("rx_accepted_unusual"), 4);
    assert_eq!(card.count("rx_accepted_err"), 3);
    assert_eq!(card.count("rx_count"), 0);
}

#[test]
fn segments_of_no_connection_are_reset() {
    let mut card = Card::new();
    let elsewhere = Header {
        peer_port: 81,
        ..to_service(5, ISN, Seq(0), SYN)
    };
    for (header, port) in [
        (elsewhere, 81),
        (to_service(5, ISN, Seq(9), ACK), 80),
        (to_service(5, ISN, Seq(9), SYN | ACK), 80),
        (to_service(5, ISN, Seq(9), SYN | FIN), 80),
    ] {
        let frames = card.send(&header, b"");
        let reset = segment_of(&frames[0]);
        assert_eq!((frames.len(), reset.flags & RST), (1, RST));
        assert_eq!((reset.source_port, reset.port), (port, 5));
    }
    assert!(card.send(&to_service(5, ISN, Seq(9), RST), b"").is_empty());
    assert_eq!(card.count("connections_created"), 0);
    // Nor those of a connection that only shares the ports.
    let start = card.connect(5);
    let header = Header {
        seq: ISN.plus(1),
        ack: start,
        flags: RST,
        ..elsewhere
    };
    assert!(card.send(&header, b"").is_empty());
    assert_eq!(card.responder.connections.len(), 1);
}

#[test]
fn a_request_is_answered_and_the_connection_ends() {
    let mut card = Card::new();
    let start = card.connect(7);
    let request = b"GET /long HTTP/1.1\r\n\r\n";
    let frames = card.send(&to_service(7, ISN.plus(1), start, ACK | PSH), request);
    let data: Vec<u8> = frames
        .iter()
        .flat_map(|f| segment_of(f).payload.to_vec())
        .collect();
    let lens: Vec<usize> = frames.iter().map(|f| segment_of(f).payload.len()).collect();
    assert!(
        lens.iter().rev().skip(1).all(|len| *len == 1000),
        "{lens:?}"
    );
    let text = String::from_utf8(data).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("xxx"));

    let (seq, ack) = (ISN.plus(1 + request.len()), start.plus(text.len()));
    let frames = card.send(&to_service(7, seq, ack, ACK | FIN), b"");
    let end = segment_of(&frames[0]);
    assert_eq!((end.flags, end.seq, end.ack), (ACK | FIN, ack, seq.plus(1)));
    assert!(
        card.send(&to_service(7, seq.plus(1), ack.plus(1), ACK), b"")
            .is_empty()
    );
    assert!(card.responder.connections.is_empty());
    assert!(card.responder.deadline().is_none());
    assert_eq!(
        (
            card.count("connections_created"),
            card.count("connections_destroyed")
        ),
        (1, 1)
    );
}

#[test]
fn lost_segments_are_sent_again_and_a_silent_guest_is_reset() {
    let mut card = Card::new();
    card.connect(6);
    let start = card.connect(7);
    let request = b"GET /a HTTP/1.1\r\n\r\n";
    let sent = card.send(&to_service(7, ISN.plus(1), start, ACK), request);
    assert_eq!(card.wait(1), sent);
    let rest = card.wait(50);
    let (last, again) = rest.split_last().unwrap();
    assert!(again.iter().all(|frame| *frame == sent[0]));
    assert_eq!(segment_of(last).flags, RST | ACK);
    // The other connection has nothing to send, and stays.
    let ports = card.responder.connections.iter().map(|c| c.peer().port);
    assert_eq!(ports.collect::<Vec<_>>(), [6]);
    assert!(card.responder.deadline().is_none());
    assert_eq!(card.count("connections_destroyed"), 1);
}

#[test]
fn the_oldest_idle_connection_makes_room() {
    let mut card = Card::new();
    let starts: Vec<Seq> = (1..=30)
        .map(|port| {
            card.clock.advance(Duration::from_millis(1));
            card.connect(port)
        })
        .collect();
    let syn = to_service(31, ISN, Seq(0), SYN);
    assert!(
        card.send(&syn, b"").is_empty(),
        "all of them may be about to ask"
    );
    card.clock.advance(Duration::from_secs(1));
    // The first connection was used since, and the second waits for the rest of its answer.
    card.send(&to_service(1, ISN.plus(1), starts[0], ACK), b"");
    card.send(
        &to_service(2, ISN.plus(1), starts[1], ACK),
        b"GET /a HTTP/1.1\r\n\r\n",
    );
    let frames = card.send(&syn, b"");
    let reset = segment_of(&frames[0]);
    assert_eq!((reset.port, reset.flags), (3, RST | ACK));
    assert_eq!((reset.seq, reset.ack), (starts[2], ISN.plus(1)));
    assert_eq!(segment_of(&frames[1]).flags, SYN | ACK);
    assert_eq!(card.responder.connections.len(), MAX_CONNECTIONS);
    assert_eq!(card.count("connections_destroyed"), 1);
}

#[test]
fn busy_connections_keep_their_place() {
    let mut card = Card::new();
    for port in 1..=30 {
        let start = card.connect(port);
        card.send(&to_service(port, ISN.plus(1), start, ACK), b"GET /a HT");
    }
    let syn = to_service(31, ISN, Seq(0), SYN);
    assert!(card.send(&syn, b"").is_empty(), "the guest tries again");
    assert_eq!(card.responder.connections.len(), MAX_CONNECTIONS);
    assert_eq!(card.count("connections_destroyed"), 0);
    // Until they have been silent for too long.
    card.clock.advance(Duration::from_secs(10));
    card.connect(32);
}

#[test]
fn unfetched_answers_are_bounded() {
    let mut card = Card::new();
    for _ in 0..1000 {
        card.offer(&arp_request(SERVICE));
    }
    assert_eq!(card.responder.waiting.len(), MAX_ANSWERS);
    assert_eq!(card.count("tx_errors"), 1000 - 64);
    assert_eq!(card.frames().len(), MAX_ANSWERS);
}

#[test]
fn an_unused_responder_allocates_nothing() {
    let card = Card::new();
    assert_eq!(card.responder.connections.capacity(), 0);
    assert_eq!(card.responder.waiting.capacity(), 0);
}

#[test]
fn connections_take_turns() {
    let mut card = Card::new();
    let starts = [card.connect(1), card.connect(2)];
    for (port, start) in [1, 2].into_iter().zip(starts) {
        let header = to_service(port, ISN.plus(1), start, ACK);
        assert!(card.offer(&segment_frame(&header, b"GET /long HTTP/1.1\r\n\r\n")));
    }
    let frames = card.frames();
    let ports: Vec<u16> = frames.iter().take(4).map(|f| segment_of(f).port).collect();
    assert!(ports == [1, 2, 1, 2] || ports == [2, 1, 2, 1], "{ports:?}");
}

/// The next act of a hostile guest.
#[derive(Clone, Debug)]
enum Act {
    Frame(Vec<u8>),
    /// A segment of one of a few connections, almost valid, with one byte changed.
    Segment {
        port: u16,
        flags: u8,
        seq: i8,
        ack: i8,
        window: u16,
        mss: Option<u16>,
        payload: usize,
        change: Option<(usize, u8)>,
    },
    Connect(u16),
    Request(u16, &'static [u8]),
    Fetch(usize, usize),
    Wait(u64),
}

fn act() -> impl Strategy<Value = Act> {
    let requests: [&[u8]; 6] = [
        b"GET /long HTTP/1.1\r\n\r\n",
        b"GET /a HTTP/1.0\r\n\r\nGET ",
        b"PUT /latest/api/token HTTP/1.1\r\nX-metadata-token-ttl-seconds: 1\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"\r\n\r\nGET /a HTTP/1.1\r\nA: ",
        b"\0",
    ];
    let port = prop_oneof![3 => 1..4_u16, 1 => 1..40_u16];
    let flags = prop_oneof![
        4 => proptest::sample::select(vec![SYN, ACK, ACK | FIN, RST, SYN | ACK, PSH | ACK]),
        1 => any::<u8>(),
    ];
    let near = || prop_oneof![3 => Just(0_i8), 1 => -3..4_i8, 1 => any::<i8>()];
    let window = prop_oneof![Just(0), Just(1), Just(0xffff), any::<u16>()];
    let mss = proptest::option::of(prop_oneof![Just(0), Just(1460), any::<u16>()]);
    let payload = prop_oneof![4 => 0..30_usize, 1 => 0..65000_usize];
    let change = proptest::option::weighted(0.3, (12..80_usize, any::<u8>()));
    prop_oneof![
        1 => vec(any::<u8>(), 0..120).prop_map(Act::Frame),
        6 => (port.clone(), flags, near(), near(), window, mss, payload, change).prop_map(
            |(port, flags, seq, ack, window, mss, payload, change)| Act::Segment {
                port, flags, seq, ack, window, mss, payload, change,
            }
        ),
        2 => port.clone().prop_map(Act::Connect),
        4 => (port, proptest::sample::select(requests.to_vec()))
            .prop_map(|(port, request)| Act::Request(port, request)),
        2 => (0..50_usize, prop_oneof![Just(1514), Just(BUFFER), 0..1514_usize])
            .prop_map(|(count, len)| Act::Fetch(count, len)),
        1 => (0..20_000_u64).prop_map(Act::Wait),
    ]
}

/// The sequence numbers that a guest would use next on each port, as far as it knows them.
struct Hostile {
    card: Card,
    next: Vec<(Seq, Seq)>,
}

impl Hostile {
    fn new() -> Self {
        Self {
            card: Card::new(),
            next: vec![(ISN, Seq(0)); 40],
        }
    }

    fn send(&mut self, header: Header, payload: &[u8], change: Option<(usize, u8)>) {
        let mut frame = segment_frame(&header, payload);
        if let Some((at, value)) = change
            && let Some(byte) = frame.get_mut(at)
        {
            *byte ^= value;
        }
        self.card.offer(&frame);
    }

    fn fetch(&mut self, count: usize, len: usize) {
        let mut buffer = vec![0x55; len];
        for _ in 0..count {
            let Some(written) = self.card.responder.next_frame(&mut buffer) else {
                break;
            };
            assert!(written <= buffer.len().min(1514), "{written}");
            if buffer[12..14] == ethernet::ARP.to_be_bytes() || buffer[..6] != GUEST_MAC {
                continue;
            }
            let Some(packet) = ipv4::Packet::parse(&buffer[14..written]) else {
                panic!("not a packet");
            };
            let segment = Segment::parse(packet.payload).unwrap();
            if let Some(next) = self.next.get_mut(usize::from(segment.port)) {
                *next = (segment.ack, segment.seq.plus(segment.seq_len()));
            }
        }
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Frame(bytes) => {
                self.card.offer(&bytes);
                // The frame is processed even if the service would not take it.
                self.card.responder.receive(&bytes);
            }
            Act::Segment {
                port,
                flags,
                seq,
                ack,
                window,
                mss,
                payload,
                change,
            } => {
                let (known_seq, known_ack) = self.next[usize::from(port)];
                let near = |known: Seq, by: i8| Seq(known.0.wrapping_add_signed(by.into()));
                let header = Header {
                    window,
                    mss,
                    ..to_service(port, near(known_seq, seq), near(known_ack, ack), flags)
                };
                self.send(header, &vec![b'G'; payload], change);
            }
            Act::Connect(port) => {
                self.send(to_service(port, ISN, Seq(0), SYN), b"", None);
                self.fetch(100, 1514);
                let (seq, ack) = self.next[usize::from(port)];
                self.send(to_service(port, seq, ack, ACK), b"", None);
            }
            Act::Request(port, request) => {
                let (seq, ack) = self.next[usize::from(port)];
                self.send(to_service(port, seq, ack, ACK), request, None);
            }
            Act::Fetch(count, len) => self.fetch(count, len),
            Act::Wait(millis) => {
                self.card.clock.advance(Duration::from_millis(millis));
                self.card.responder.poll();
            }
        }
        self.check();
    }

    fn check(&mut self) {
        let Responder {
            connections,
            waiting,
            ..
        } = &self.card.responder;
        assert!(connections.len() <= MAX_CONNECTIONS);
        assert!(waiting.len() <= MAX_ANSWERS);
        for connection in connections {
            let (requests, response) = connection.buffered();
            assert!(requests <= 2 * MAX_REQUEST, "{requests}");
            assert!(response <= LIMIT + 1000, "{response}");
        }
        let created = self.card.count("connections_created");
        let destroyed = self.card.count("connections_destroyed");
        assert_eq!(created - destroyed, connections.len() as u64);
        self.card.responder.deadline();
    }
}

#[test]
fn no_frames_of_a_guest_break_the_service() {
    let acts = vec(act(), 1..150);
    let run = |acts: Vec<Act>| {
        let mut hostile = Hostile::new();
        for act in acts {
            hostile.act(act);
        }
        // After all this, another client is still served.
        hostile.card.clock.advance(Duration::from_secs(60));
        hostile.fetch(10_000, BUFFER);
        let start = hostile.card.connect(100);
        let header = to_service(100, ISN.plus(1), start, ACK);
        let frames = hostile.card.send(&header, b"GET /a HTTP/1.1\r\n\r\n");
        assert!(frames.iter().any(|frame| frame.ends_with(b"\r\n\r\nb")));
        Ok(())
    };
    properties().run(&acts, run).unwrap();
}
