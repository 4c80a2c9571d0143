use super::super::tcp::SYN;
use super::*;

/// Close to the end, so that everything goes round.
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

/// A sender of an open connection, with `len` bytes to send.
fn open(mss: u16, window: u16, len: usize) -> Sender {
    let mut sender = new(Some(mss), window);
    let syn = sender.next(ROOM, at(0)).unwrap();
    assert!(syn.syn);
    assert!(sender.acknowledged(FIRST.plus(1), PEER.plus(1), window, at(0)));
    assert!(sender.is_open() && sender.is_idle());
    sender.send(vec![7; len]);
    sender
}

/// Acknowledges `count` bytes of data, in a segment of the peer's without data.
fn ack(sender: &mut Sender, count: usize, window: u16, now: Duration) -> bool {
    sender.acknowledged(FIRST.plus(1 + count), PEER.plus(1), window, now)
}

/// All that can be sent now: from where to where, and whether the last one ends the connection.
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
fn segments_are_as_long_as_the_peer_takes() {
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
fn the_caller_says_how_long_a_segment_may_be() {
    let mut sender = open(1460, 1000, 200);
    assert_eq!(sender.next(64, at(0)).unwrap().data, 0..64);
    assert_eq!(sender.next(0, at(0)), None);
    assert_eq!(sender.next(64, at(0)).unwrap().data, 64..128);
}

#[test]
fn no_more_is_on_its_way_than_the_window_takes() {
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
    // An old segment tells nothing new.
    assert!(ack(&mut sender, 100, 9000, at(1)));
    assert_eq!(all(&mut sender, at(1)).0, []);
}

#[test]
fn what_is_not_acknowledged_is_sent_again_from_there() {
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
    // All had come but what acknowledged it was lost.
    assert!(sender.on_timeout(at(910)));
    assert!(ack(&mut sender, 301, 1000, at(911)));
    assert!(sender.is_over() && sender.is_idle());
    assert_eq!(all(&mut sender, at(911)), (vec![], false));
    assert_eq!(sender.deadline(), None);
}

#[test]
fn the_end_may_come_after_the_data() {
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
fn a_closed_window_is_asked_for_as_long_as_the_peer_answers() {
    let mut sender = open(100, 0, 300);
    let mut now = at(0);
    for _ in 0..100 {
        assert_eq!(all(&mut sender, now).0, []);
        now = sender.deadline().unwrap();
        assert!(sender.on_timeout(now));
        assert_eq!(all(&mut sender, now).0, [(0, 1)]);
        assert!(ack(&mut sender, 0, 0, now));
    }
    // It opens, and dropped what asked for it.
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
fn a_silent_peer_is_given_up() {
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
fn what_was_never_sent_cannot_be_acknowledged() {
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
