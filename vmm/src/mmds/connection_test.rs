use super::*;

const FIRST: Seq = Seq(u32::MAX - 5);
const PEER_FIRST: Seq = Seq(u32::MAX - 2);
const MAC: Mac = [2; 6];
const ROOM: usize = 2000;

fn now() -> Duration {
    Duration::from_secs(1)
}

fn segment(seq: Seq, ack: Seq, flags: u8, payload: &[u8]) -> Segment<'_> {
    Segment {
        source_port: 999,
        port: PORT,
        seq,
        ack,
        flags,
        window: 1000,
        mss: None,
        payload,
    }
}

/// A guest's end with its own counters. A request is a word that ends with a dot; `bye.` closes the connection.
struct Client {
    connection: Connection,
    seq: Seq,
    ack: Seq,
    flags: u8,
    window: u16,
}

fn answer(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.iter().position(|b| *b == b'.');
    let used = match end {
        Some(end) => end + 1,
        None if bytes.len() == MAX_REQUEST => bytes.len(),
        None => return None,
    };
    Some(Answer {
        used,
        response: [b"re:", &bytes[..used.min(20)]].concat(),
        close: end.is_none() || &bytes[..used] == b"bye.",
    })
}

impl Client {
    fn connect() -> Self {
        let peer = Peer {
            mac: MAC,
            ip: Ipv4Addr::new(10, 0, 0, 1),
            port: 999,
        };
        let syn = segment(PEER_FIRST, Seq(0), SYN, &[]);
        let mut client = Self {
            connection: Connection::open(peer, &syn, FIRST, now()),
            seq: PEER_FIRST.plus(1),
            ack: Seq(0),
            flags: 0,
            window: 0,
        };
        let (header, data) = client.connection.next_segment(ROOM, now()).unwrap();
        assert_eq!(
            (header.flags, header.mss, data.len()),
            (SYN | ACK, Some(1460), 0)
        );
        assert_eq!((header.seq, header.ack), (FIRST, client.seq));
        assert_eq!((header.port, header.peer_port), (80, 999));
        client.ack = FIRST.plus(1);
        assert_eq!(client.send(0, b""), Received::Taken);
        assert_eq!(client.receive_text(), None);
        client
    }

    fn receive(&mut self, segment: &Segment<'_>) -> Received {
        self.connection.receive(MAC, segment, now(), answer)
    }

    /// Sends the next segment, which acknowledges all data received in order.
    fn send(&mut self, flags: u8, payload: &[u8]) -> Received {
        let segment = segment(self.seq, self.ack, flags | ACK, payload);
        let received = self.receive(&segment);
        self.seq = self.seq.plus(segment.seq_len());
        received
    }

    /// Receives the data of the next segment, if there is one.
    fn receive_text(&mut self) -> Option<String> {
        let (header, data) = self.connection.next_segment(ROOM, now())?;
        if header.seq == self.ack {
            self.ack = self
                .ack
                .plus(data.len() + usize::from(header.flags & FIN != 0));
        }
        (self.flags, self.window) = (header.flags, header.window);
        assert_eq!(header.ack, self.seq, "all is acknowledged");
        Some(String::from_utf8(data.to_vec()).unwrap())
    }
}

fn text(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let mut client = Client::connect();
    client.send(PSH, b"one.two.th");
    assert_eq!(client.receive_text(), text("re:one."));
    assert_eq!(
        client.receive_text(),
        None,
        "the answer is not acknowledged"
    );
    client.send(0, b"");
    assert_eq!(client.receive_text(), text("re:two."));
    client.send(0, b"ree.");
    assert_eq!(client.receive_text(), text("re:three."));
    client.send(0, b"");
    assert_eq!(client.receive_text(), None);
    assert!(
        !client
            .connection
            .is_idle(now() + Duration::from_millis(999))
    );
    assert!(client.connection.is_idle(now() + Duration::from_secs(1)));
    assert_eq!(client.connection.buffered(), (0, 0));
}

#[test]
fn the_guest_ends_the_connection() {
    let mut client = Client::connect();
    client.send(FIN, b"");
    assert_eq!(client.receive_text(), text(""));
    assert_eq!(client.flags, FIN | ACK);
    assert!(!client.connection.is_over());
    client.send(0, b"");
    assert!(client.connection.is_over());
}

#[test]
fn the_guest_may_close_with_its_last_request() {
    let mut client = Client::connect();
    client.send(FIN, b"one.two.");
    assert_eq!(client.receive_text(), text("re:one."));
    assert_eq!(client.flags & FIN, 0);
    client.send(0, b"");
    assert_eq!(client.receive_text(), text("re:two."));
    assert_eq!(client.flags & FIN, FIN);
    client.send(0, b"");
    assert!(client.connection.is_over());
    let mut client = Client::connect();
    client.send(FIN, b"unfinish");
    assert_eq!(client.receive_text(), text(""));
    assert_eq!(client.flags, FIN | ACK);
}

#[test]
fn the_service_ends_the_connection() {
    let mut client = Client::connect();
    client.send(0, b"bye.");
    assert_eq!(client.receive_text(), text("re:bye."));
    assert_eq!(client.flags & FIN, FIN);
    // Data that comes now is acknowledged and dropped.
    client.send(0, b"more.");
    assert_eq!(client.receive_text(), text(""));
    assert_eq!(client.flags, ACK);
    client.send(FIN, b"");
    assert!(!client.connection.is_over(), "the guest must hear of it");
    assert_eq!(client.receive_text(), text(""));
    assert!(client.connection.is_over());
}

#[test]
fn both_sides_may_close_at_once() {
    let mut client = Client::connect();
    client.send(0, b"bye.");
    let before = client.ack;
    assert_eq!(client.receive_text(), text("re:bye."));
    let after = std::mem::replace(&mut client.ack, before);
    client.send(FIN, b"");
    client.ack = after;
    assert_eq!(client.receive_text(), text(""));
    assert!(!client.connection.is_over());
    client.send(0, b"");
    assert!(client.connection.is_over());
}

#[test]
fn a_request_in_pieces_shrinks_the_window_until_it_is_answered() {
    let mut client = Client::connect();
    client.send(0, &[b'a'; 1000]);
    client.receive_text().unwrap();
    assert_eq!(client.window, 3096);
    client.send(0, b".");
    client.receive_text().unwrap();
    assert_eq!(client.window, 4096);
}

#[test]
fn an_endless_request_is_refused() {
    let mut client = Client::connect();
    // Data beyond the window is dropped.
    let long = vec![b'a'; 0xffff - 40];
    let segment = segment(client.seq, client.ack, ACK, &long);
    assert_eq!(client.receive(&segment), Received::Taken);
    client.seq = client.seq.plus(MAX_REQUEST);
    assert!(client.receive_text().unwrap().starts_with("re:aaa"));
    assert_eq!(client.flags & FIN, FIN);
    assert_eq!(client.connection.buffered().0, 0);
}

#[test]
fn a_full_buffer_closes_the_window_and_reopens_it() {
    let mut client = Client::connect();
    client.send(0, b"one.");
    // The answer is not acknowledged, and many requests follow.
    let before = client.ack;
    client.receive_text().unwrap();
    let after = std::mem::replace(&mut client.ack, before);
    client.send(0, &b"two.".repeat(1024));
    client.receive_text().unwrap();
    assert_eq!(client.window, 0);
    let probe = segment(client.seq, client.ack, ACK, b"t");
    client.receive(&probe);
    assert_eq!(client.receive_text(), text(""));
    client.ack = after;
    // A segment at a closed window is still acknowledged.
    client.send(0, b"");
    assert_eq!(client.receive_text(), text("re:two."));
    assert_eq!(client.window, 4);
}

#[test]
fn a_larger_window_is_announced_even_if_the_answer_is_not_taken() {
    let mut client = Client::connect();
    client.send(0, b"one.");
    let before = client.ack;
    client.receive_text().unwrap();
    let after = std::mem::replace(&mut client.ack, before);
    client.send(0, &[&[b'a'; 3000][..], b"."].concat());
    client.receive_text().unwrap();
    assert_eq!(client.window, 1095);
    let shut = Segment {
        window: 0,
        ..segment(client.seq, after, ACK, b"")
    };
    client.receive(&shut);
    client.ack = after;
    assert_eq!(client.receive_text(), text(""));
    assert_eq!(client.window, 4096);
}

#[test]
fn segments_out_of_order_are_requested_again() {
    let mut client = Client::connect();
    let (start, ack) = (client.seq, client.ack);
    client.receive(&segment(start.plus(2), ack, ACK, b"e."));
    assert_eq!(client.receive_text(), text(""));
    // Overlapping and repeated segments, and one with an early end.
    client.receive(&segment(start, ack, ACK, b"on"));
    client.receive(&segment(start.plus(4), ack, ACK | FIN, b""));
    client.receive(&segment(start, ack, ACK, b"on"));
    client.receive(&segment(start, ack, ACK, b"one"));
    client.receive(&segment(start.plus(1), ack, ACK, b"ne."));
    client.seq = start.plus(4);
    assert_eq!(client.receive_text(), text("re:one."));
    assert_eq!(client.receive_text(), None);
    // Old data, and a keep-alive.
    for (seq, payload) in [
        (start, &b"one."[..]),
        (start.plus(3), b""),
        (start.plus(3), b"x"),
    ] {
        client.receive(&segment(seq, client.ack, ACK, payload));
        assert_eq!(client.receive_text(), text(""));
        assert_eq!(client.receive_text(), None);
    }
}

#[test]
fn a_repeated_fin_is_acknowledged_again() {
    let mut client = Client::connect();
    client.send(0, b"one.");
    let (seq, ack) = (client.seq, client.ack);
    client.receive_text().unwrap();
    client.receive(&segment(seq, ack, ACK | FIN, b""));
    client.seq = seq.plus(1);
    client.receive_text().unwrap();
    client.receive(&segment(seq, ack, ACK | FIN, b""));
    assert_eq!(client.receive_text(), text(""));
    client.receive(&segment(seq.plus(1), ack, ACK, b"after the end"));
    assert_eq!(client.receive_text(), text(""));
}

#[test]
fn only_a_reset_with_the_expected_number_resets() {
    let mut client = Client::connect();
    let (seq, ack) = (client.seq, client.ack);
    // In the window, a reset is answered by an acknowledgment; elsewhere it is ignored.
    assert_eq!(
        client.receive(&segment(seq.plus(1), ack, RST, b"")),
        Received::Taken
    );
    assert_eq!(client.receive_text(), text(""));
    assert_eq!(
        client.receive(&segment(seq.plus(9000), ack, RST, b"")),
        Received::Taken
    );
    assert_eq!(client.receive_text(), None);
    assert_eq!(
        client.receive(&segment(seq, ack, RST, b"")),
        Received::Reset
    );
}

#[test]
fn a_peer_that_lost_the_connection_gets_the_expected_number() {
    let mut client = Client::connect();
    let other = Seq(77);
    assert_eq!(
        client.receive(&segment(other, Seq(0), SYN, b"")),
        Received::Taken
    );
    assert_eq!(client.receive_text(), text(""));
    assert_eq!(client.flags, ACK);
    // The peer then resets with the expected sequence number.
    assert_eq!(
        client.receive(&segment(client.seq, Seq(0), RST, b"")),
        Received::Reset
    );
}

#[test]
fn a_repeated_syn_is_answered_again() {
    let peer = Peer {
        mac: MAC,
        ip: Ipv4Addr::new(10, 0, 0, 1),
        port: 999,
    };
    let syn = segment(PEER_FIRST, Seq(0), SYN, &[]);
    let mut connection = Connection::open(peer, &syn, FIRST, now());
    for _ in 0..3 {
        let (header, _) = connection.next_segment(ROOM, now()).unwrap();
        assert_eq!((header.flags, header.seq), (SYN | ACK, FIRST));
        assert!(connection.next_segment(ROOM, now()).is_none());
        assert_eq!(
            connection.receive(MAC, &syn, now(), answer),
            Received::Taken
        );
    }
    // The segment acknowledges another connection's data.
    let wrong = segment(PEER_FIRST.plus(1), Seq(5000), ACK, b"one.");
    assert_eq!(
        connection.receive(MAC, &wrong, now(), answer),
        Received::Refused
    );
}

#[test]
fn meaningless_segments_are_ignored() {
    let mut client = Client::connect();
    let (seq, ack) = (client.seq, client.ack);
    client.receive(&segment(seq, ack, 0, b"one."));
    assert_eq!(client.receive_text(), None, "it acknowledges nothing");
    client.receive(&segment(seq.plus(5000), ack, ACK, b"one."));
    assert_eq!(client.receive_text(), text(""));
    client.receive(&segment(seq, ack.plus(1), ACK, b"one."));
    assert_eq!(
        client.receive_text(),
        text(""),
        "it acknowledges what was not sent"
    );
    client.send(0, b"one.");
    assert_eq!(client.receive_text(), text("re:one."));
}
