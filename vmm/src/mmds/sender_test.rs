use super::super::tcp::SYN;
use super::*;

/// A first sequence number close to the end, so that numbers wrap around.
const FIRST: Seq = Seq(u32::MAX - 100);
const PEER: Seq = Seq(1000);
const ROOM: usize = 0x1_0000;

fn at(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn new(mss: Option<u16>, window: u16) -> Sender {
    let syn = Segment {
        source_port: 1,
        port: 80,
        seq: PEER,
        ack: Seq(0),
        flags: SYN,
        window,
        mss,
        payload: &[],
    };
    Sender::new(FIRST, &syn)
}

/// Returns the sender of an open connection with `len` bytes to send.
fn open(mss: u16, window: u16, len: usize) -> Sender {
    let mut sender = new(Some(mss), window);
    let syn = sender.next(ROOM, at(0)).unwrap();
    assert!(syn.syn);
    assert!(sender.acknowledged(FIRST.plus(1), PEER.plus(1), window, at(0)));
    assert!(sender.is_open() && sender.is_idle());
    sender.send(vec![7; len]);
    sender
}

/// Acknowledges `count` bytes, in a segment without data.
fn ack(sender: &mut Sender, count: usize, window: u16, now: Duration) -> bool {
    sender.acknowledged(FIRST.plus(1 + count), PEER.plus(1), window, now)
}

/// Returns all segments that can be sent now, as ranges, and whether the last one closes the connection.
fn all(sender: &mut Sender, now: Duration) -> (Vec<(usize, usize)>, bool) {
    let mut ranges = Vec::new();
    let mut fin = false;
    while let Some(piece) = sender.next(ROOM, now) {
        assert!(!fin, "nothing follows the end");
        assert!(ranges.len() < 100);
        assert_eq!(piece.seq, FIRST.plus(1 + piece.data.start));
        ranges.push((piece.data.start, piece.data.end));
        fin = piece.fin;
    }
    (ranges, fin)
}

#[test]
fn segments_have_the_peer_s_size() {
    let mut sender = open(100, 1000, 250);
    assert_eq!(
        all(&mut sender, at(0)),
        (vec![(0, 100), (100, 200), (200, 250)], false)
    );
    assert!(!sender.is_idle());
    assert!(ack(&mut sender, 250, 1000, at(1)));
    assert!(sender.is_idle());
    assert_eq!(sender.deadline(), None);
    for (mss, longest) in [(None, 536), (Some(0), 48), (Some(9000), 1460)] {
        assert_eq!(new(mss, 0).mss, longest);
    }
}

#[test]
fn the_caller_limits_a_segment() {
    let mut sender = open(1460, 1000, 200);
    assert_eq!(sender.next(64, at(0)).unwrap().data, 0..64);
    assert_eq!(sender.next(0, at(0)), None);
    assert_eq!(sender.next(64, at(0)).unwrap().data, 64..128);
}

#[test]
fn data_in_flight_is_limited_by_the_window() {
    let mut sender = open(100, 250, 1000);
    assert_eq!(
        all(&mut sender, at(0)).0,
        [(0, 100), (100, 200)],
        "50 would cut a segment"
    );
    ack(&mut sender, 100, 250, at(1));
    assert_eq!(all(&mut sender, at(1)).0, [(200, 300)]);
    ack(&mut sender, 300, 40, at(1));
    assert_eq!(
        all(&mut sender, at(1)).0,
        [(300, 340)],
        "nothing else is on its way"
    );
    // An old segment does not change the window.
    assert!(ack(&mut sender, 100, 9000, at(1)));
    assert_eq!(all(&mut sender, at(1)).0, []);
}

#[test]
fn unacknowledged_data_is_sent_again() {
    let mut sender = open(100, 1000, 300);
    sender.finish();
    assert_eq!(
        all(&mut sender, at(0)),
        (vec![(0, 100), (100, 200), (200, 300)], true)
    );
    ack(&mut sender, 100, 1000, at(10));
    assert_eq!(sender.deadline(), Some(at(310)));
    assert!(sender.on_timeout(at(310)));
    assert_eq!(
        all(&mut sender, at(310)),
        (vec![(100, 200), (200, 300)], true)
    );
    assert_eq!(sender.deadline(), Some(at(910)), "twice as long");
    // All data arrived, but the acknowledgment was lost.
    assert!(sender.on_timeout(at(910)));
    assert!(ack(&mut sender, 301, 1000, at(911)));
    assert!(sender.is_over() && sender.is_idle());
    assert_eq!(all(&mut sender, at(911)), (vec![], false));
    assert_eq!(sender.deadline(), None);
}

#[test]
fn the_fin_may_follow_the_data() {
    let mut sender = open(100, 1000, 50);
    assert_eq!(all(&mut sender, at(0)), (vec![(0, 50)], false));
    sender.finish();
    assert_eq!(all(&mut sender, at(0)), (vec![(50, 50)], true));
    ack(&mut sender, 50, 1000, at(0));
    assert!(!sender.is_over() && !sender.is_idle());
    ack(&mut sender, 51, 1000, at(0));
    assert!(sender.is_over());
}

#[test]
fn a_closed_window_is_probed_as_long_as_the_peer_answers() {
    let mut sender = open(100, 0, 300);
    let mut now = at(0);
    for _ in 0..100 {
        assert_eq!(all(&mut sender, now).0, []);
        now = sender.deadline().unwrap();
        assert!(sender.on_timeout(now));
        assert_eq!(all(&mut sender, now).0, [(0, 1)]);
        assert!(ack(&mut sender, 0, 0, now));
    }
    // The window opens, after the peer dropped the probe.
    ack(&mut sender, 0, 150, now);
    assert_eq!(all(&mut sender, now).0, [(0, 100)]);
    ack(&mut sender, 100, 0, now);
    assert_eq!(all(&mut sender, now).0, []);
    assert!(sender.deadline().is_some());
}

#[test]
fn a_segment_without_data_stays_in_the_window() {
    let mut sender = open(100, 200, 300);
    all(&mut sender, at(0));
    assert_eq!(sender.seq(), FIRST.plus(201));
    ack(&mut sender, 100, 0, at(0));
    assert_eq!(sender.seq(), FIRST.plus(101));
}

#[test]
fn a_silent_peer_is_considered_gone() {
    let mut sender = open(100, 1000, 10);
    let mut now = at(0);
    for _ in 0..MAX_TIMEOUTS {
        assert_eq!(all(&mut sender, now).0, [(0, 10)]);
        now = sender.deadline().unwrap();
        assert!(sender.on_timeout(now));
    }
    now = sender.deadline().unwrap();
    assert!(!sender.on_timeout(now));
    assert!(now > at(25_000) && now < at(45_000), "{now:?}");
}

#[test]
fn unsent_data_cannot_be_acknowledged() {
    let mut sender = open(100, 1000, 50);
    assert!(!ack(&mut sender, 1, 1000, at(0)));
    all(&mut sender, at(0));
    assert!(!ack(&mut sender, 51, 1000, at(0)));
    assert!(ack(&mut sender, 50, 1000, at(0)));
    let mut unopened = new(None, 1000);
    assert!(!unopened.acknowledged(FIRST.plus(1), PEER.plus(1), 1, at(0)));
    unopened.next(ROOM, at(0)).unwrap();
    assert!(unopened.acknowledged(FIRST, PEER.plus(1), 1, at(0)));
    assert!(!unopened.is_open());
}
