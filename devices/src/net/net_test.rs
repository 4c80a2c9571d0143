use super::handler::RX_BUDGET;
use super::tap::TapError;
use super::*;
use crate::GuestMemory;
use crate::testing::*;
use nix::sys::socket::sockopt::SndBuf;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd as _, IntoRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{Ordering, fence};
use vm_memory::{Bytes, GuestAddress};

const VERSION_1: u64 = 1 << 32;
const MERGED: u64 = 1 << VIRTIO_NET_F_MRG_RXBUF;
const NEEDS_RESET: u32 = 0x40;

/// A guest's card on one end of a message socket, the test at the other.
struct Wire {
    guest: FakeGuest,
    peer: File,
    event_loop: TestLoop,
    rx: Ring,
    tx: Ring,
}

impl Wire {
    fn new(features: u64) -> Self {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let (ours, peer): (OwnedFd, OwnedFd) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        setsockopt(&peer, SndBuf, &(4 << 20)).unwrap();
        let mut wire = Self::on(Tap::from_socket(ours), peer.into());
        wire.restart(features);
        wire
    }

    fn on(tap: Tap, peer: File) -> Self {
        let event_loop = TestLoop::spawn();
        let card = Box::new(Net::new(tap, NetOptions::default()));
        Self {
            guest: FakeGuest::with(card, memory(), event_loop.clone()),
            peer,
            event_loop,
            rx: Ring::new(0, 16),
            tx: Ring::new(1, 16),
        }
    }

    fn restart(&mut self, features: u64) {
        let mut rings = self.guest.start(VERSION_1 | features, 16);
        self.tx = rings.remove(1);
        self.rx = rings.remove(0);
    }

    fn mem(&self) -> &GuestMemory {
        &self.guest.mem
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        self.mem().write_slice(bytes, GuestAddress(at)).unwrap();
    }

    fn get(&self, at: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.mem().read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }

    fn arrives(&self, packet: &[u8]) {
        assert_eq!((&self.peer).write(packet).unwrap(), packet.len());
    }

    /// Offers a buffer for receiving.
    fn offer(&mut self, buffers: &[(u64, u32)]) {
        let buffers: Vec<_> = buffers.iter().map(|(at, len)| (*at, *len, true)).collect();
        self.rx.add(&self.guest.mem, &buffers);
        self.guest.kick(0);
    }

    fn receive(&mut self) -> u32 {
        self.guest.wait_used(&mut self.rx).1
    }

    fn nothing_received(&mut self) {
        self.guest.settle();
        assert_eq!(self.rx.take_used(&self.guest.mem), None);
        assert_eq!(self.guest.read(0x70), 15);
    }

    fn send(&mut self, buffers: &[(u64, u32, bool)]) {
        assert_eq!(self.guest.request(&mut self.tx, buffers), 0);
    }

    fn sent(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 0x2_0000];
        let len = (&self.peer).read(&mut packet).ok()?;
        packet.truncate(len);
        Some(packet)
    }
}

/// A packet of `len` bytes after its header.
fn packet(len: usize, fill: u8) -> Vec<u8> {
    let mut packet = vec![0; HEADER];
    packet.extend((0..len).map(|n| fill ^ n.to_le_bytes()[0]));
    packet
}

/// As the guest gets it.
fn with_count(mut packet: Vec<u8>, buffers: u8) -> Vec<u8> {
    packet[NUM_BUFFERS] = buffers;
    packet
}

#[test]
fn a_packet_is_split_over_merged_buffers() {
    let mut wire = Wire::new(MERGED);
    let sent = packet(60, 0x11);
    for n in 0..5 {
        // The second buffer is itself in pieces, and so is num_buffers.
        wire.offer(&[(DATA + n * 64, 11), (DATA + n * 64 + 11, 9)]);
    }
    wire.arrives(&sent);
    let lens: Vec<u32> = (0..4).map(|_| wire.receive()).collect();
    assert_eq!(lens, [20, 20, 20, 12]);
    let got: Vec<u8> = (0..4_u64)
        .zip([20, 20, 20, 12])
        .flat_map(|(n, len)| wire.get(DATA + n * 64, len))
        .collect();
    assert_eq!(got, with_count(sent, 4));
    wire.nothing_received();
    wire.arrives(&packet(8, 1));
    assert_eq!(wire.receive(), 20, "the fifth buffer was not used up");
    assert_eq!(wire.get(DATA + 4 * 64 + 10, 2), [1, 0]);
}

#[test]
fn a_packet_waits_for_buffers() {
    for features in [0, MERGED] {
        let mut wire = Wire::new(features);
        let sent = packet(100, 0x22);
        wire.arrives(&sent);
        wire.nothing_received();
        wire.offer(&[(DATA, 200)]);
        assert_eq!(wire.receive(), 112);
        assert_eq!(wire.get(DATA, 112), with_count(sent, 1));
    }
}

#[test]
fn a_packet_is_delivered_only_once_it_fits_completely() {
    let mut wire = Wire::new(MERGED);
    let sent = packet(100, 0x33);
    wire.offer(&[(DATA, 50)]);
    wire.arrives(&sent);
    wire.nothing_received();
    wire.offer(&[(DATA + 50, 50)]);
    wire.nothing_received();
    wire.offer(&[(DATA + 100, 50)]);
    assert_eq!(
        [wire.receive(), wire.receive(), wire.receive()],
        [50, 50, 12]
    );
    assert_eq!(wire.get(DATA, 112), with_count(sent, 3));
}

#[test]
fn a_packet_that_never_fits_is_dropped() {
    let mut wire = Wire::new(0);
    wire.offer(&[(DATA, 10), (DATA + 10, 40)]);
    wire.arrives(&packet(60, 0x44));
    wire.nothing_received();
    wire.arrives(&packet(38, 0x55));
    assert_eq!(wire.receive(), 50, "the buffer was kept for the next");
    assert_eq!(wire.get(DATA, 50), with_count(packet(38, 0x55), 1));

    let mut wire = Wire::new(MERGED);
    for n in 0..16 {
        wire.offer(&[(DATA + n * 20, 20)]);
    }
    wire.arrives(&packet(400, 0x66));
    wire.nothing_received();
    wire.arrives(&packet(308, 0x77));
    for _ in 0..16 {
        assert_eq!(wire.receive(), 20);
    }
    assert_eq!(wire.get(DATA, 320), with_count(packet(308, 0x77), 16));
}

#[test]
fn a_packet_shorter_than_its_header_is_skipped() {
    let mut wire = Wire::new(MERGED);
    wire.guest.settle();
    let paused = |wire: &Wire| crate::lock(&wire.guest.transport).pause();
    paused(&wire);
    for len in [1, 5, HEADER] {
        wire.arrives(&vec![0xff; len]);
    }
    wire.arrives(&packet(1, 0x88));
    wire.offer(&[(DATA, 2048)]);
    crate::lock(&wire.guest.transport).resume();
    assert_eq!(wire.receive(), 13);
    wire.nothing_received();
}

#[test]
fn packets_beyond_one_turn_all_arrive() {
    let wire = Wire::new(MERGED);
    crate::lock(&wire.guest.transport).pause();
    let mut arrived = 0_u32;
    while arrived < 600 && (&wire.peer).write(&packet(4, 0)).is_ok() {
        arrived += 1;
    }
    let many = u32::try_from(RX_BUDGET).unwrap();
    assert!(arrived > many, "only {arrived} packets fit the socket");
    let mut rings = wire.guest.start(VERSION_1 | MERGED, 256);
    let (guest, rx) = (&wire.guest, &mut rings[0]);
    for n in 0..256 {
        rx.add(&guest.mem, &[(DATA + n * 16, 16, true)]);
    }
    guest.kick(0);
    let flags = GuestAddress(rx.used);
    for n in 0..arrived {
        assert_eq!(guest.wait_used(rx).1, 16, "packet {n} of {arrived}");
        rx.add(&guest.mem, &[(DATA, 16, true)]);
        // As a driver does: no kick that is not asked for.
        fence(Ordering::SeqCst);
        if guest.mem.read_obj::<u16>(flags).unwrap() == 0 {
            guest.kick(0);
        }
    }
}

#[test]
fn packets_behind_many_that_never_fit_arrive() {
    let mut wire = Wire::new(0);
    crate::lock(&wire.guest.transport).pause();
    let too_long = packet(100, 1);
    for _ in 0..RX_BUDGET + 10 {
        wire.arrives(&too_long);
    }
    wire.arrives(&packet(4, 2));
    wire.offer(&[(DATA, 50)]);
    crate::lock(&wire.guest.transport).resume();
    assert_eq!(wire.receive(), 16);
}

#[test]
fn packets_are_sent_however_they_are_split() {
    let mut wire = Wire::new(0);
    let sent = packet(1000, 0x99);
    wire.put(DATA, &sent);
    for buffers in [
        &[(DATA, 1012, false)][..],
        &[(DATA, 12, false), (DATA + 12, 1000, false)],
        &[
            (DATA, 3, false),
            (DATA + 3, 0, false),
            (DATA + 3, 10, false),
            (DATA + 13, 999, false),
        ],
        &[(DATA, 1012, false), (DATA + 0x1000, 64, true)],
    ] {
        wire.send(buffers);
        assert_eq!(wire.sent(), Some(sent.clone()));
    }
    wire.put(DATA + 0x1000, &vec![0xaa; 0x1_0000]);
    let largest = u32::try_from(MAX_PACKET).unwrap();
    wire.send(&[(DATA + 0x1000, largest, false)]);
    assert_eq!(wire.sent().unwrap().len(), MAX_PACKET);
}

#[test]
fn malformed_packets_are_dropped() {
    let mut wire = Wire::new(0);
    let largest = u32::try_from(MAX_PACKET).unwrap();
    for buffers in [
        &[(DATA, largest + 1, false)][..],
        &[(DATA, u32::MAX, false)],
        &[(DATA, 0, false)],
        &[(DATA, 64, true)],
        &[(DATA, 64, true), (DATA, 64, false)],
        &[(MEM as u64 - 10, 64, false)],
        &[(DATA, 12, false), (u64::MAX - 10, 64, false)],
    ] {
        wire.send(buffers);
        assert!(wire.sent().unwrap_or_default().is_empty(), "{buffers:?}");
    }
    wire.send(&[(DATA, 64, false)]);
    assert_eq!(wire.sent().unwrap().len(), 64);
    assert_eq!(wire.guest.read(0x70), 15);
}

#[test]
fn a_full_tap_drops_instead_of_blocking() {
    let mut wire = Wire::new(0);
    wire.put(DATA, &packet(60_000, 1));
    for _ in 0..100 {
        wire.send(&[(DATA, 60_000, false)]);
    }
    let mut through = 0;
    while wire.sent().is_some() {
        through += 1;
    }
    assert!((1..100).contains(&through), "{through} packets");
    wire.send(&[(DATA, 100, false)]);
    assert_eq!(wire.sent().unwrap().len(), 100);
}

#[test]
fn a_buffer_of_the_wrong_direction_breaks_the_queue_until_its_reset() {
    let mut wire = Wire::new(MERGED);
    wire.rx.add(&wire.guest.mem, &[(DATA, 100, false)]);
    wire.arrives(&packet(10, 1));
    wire.guest.settle();
    assert_eq!(wire.guest.read(0x70), 15 | NEEDS_RESET);
    wire.restart(MERGED);
    wire.offer(&[(DATA, 100)]);
    wire.arrives(&packet(20, 2));
    assert_eq!(wire.receive(), 32, "what waited went with the reset");
}

fn stays_alive_and_idle(wire: &mut Wire) {
    for _ in 0..3 {
        wire.offer(&[(DATA + 0x1000, 2048)]);
        wire.send(&[(DATA, 100, false)]);
    }
    wire.nothing_received();
    assert!(wire.event_loop.rests(), "the loop spins");
    wire.restart(MERGED);
    wire.send(&[(DATA, 100, false)]);
    assert_eq!(wire.guest.read(0x70), 15);
}

#[test]
fn a_tap_without_its_other_end_does_not_stop_the_device() {
    let mut wire = Wire::new(MERGED);
    wire.send(&[(DATA, 100, false)]);
    wire.peer = File::open("/dev/null").unwrap();
    stays_alive_and_idle(&mut wire);
}

#[test]
fn address_and_mtu_are_offered_if_configured() {
    let card = |mac, mtu| {
        let (ours, _) = std::os::unix::net::UnixDatagram::pair().unwrap();
        let options = NetOptions {
            mac,
            mtu,
            ..NetOptions::default()
        };
        FakeGuest::new(Box::new(Net::new(Tap::from_socket(ours.into()), options)))
    };
    let guest = card(Some([2, 3, 4, 5, 6, 7]), Some(9000));
    let features = guest.offered();
    assert_ne!(features & 1 << VIRTIO_NET_F_MAC, 0);
    assert_ne!(features & 1 << VIRTIO_NET_F_MTU, 0);
    assert_eq!(guest.read(0x100), 0x0504_0302);
    assert_eq!(guest.read(0x104), 0x0001_0706);
    assert_eq!(guest.read(0x108), 9000 << 16 | 1);
    let features = card(None, None).offered();
    assert_eq!(features & 1 << VIRTIO_NET_F_MAC, 0);
    assert_eq!(features & 1 << VIRTIO_NET_F_MTU, 0);
}

/// Runs `test` in a network of its own, on a thread of its own; not at all without the
/// privilege to make one.
fn in_own_network(test: fn()) {
    let made = std::thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
        test();
        nix::Result::Ok(())
    });
    match made.join() {
        Ok(Ok(())) => {}
        Ok(Err(e)) => eprintln!("skipped: making a network namespace takes root: {e}"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs iproute2 in the network of the calling thread.
fn ip(arguments: &str) {
    let done = Command::new("ip").args(arguments.split(' ')).status();
    assert!(done.unwrap().success(), "ip {arguments}");
}

/// Packets and bytes that the host received from the tap.
fn host_received() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let line = text.lines().find(|l| l.contains("tap0:")).unwrap();
    let mut fields = line.rsplit(':').next().unwrap().split_whitespace();
    let bytes = fields.next().unwrap().parse().unwrap();
    (fields.next().unwrap().parse().unwrap(), bytes)
}

/// A broadcast that asks who has 10.0.0.1, from a card that is not there.
fn who_has() -> Vec<u8> {
    let mut frame = vec![0; HEADER];
    frame.extend([0xff; 6]);
    frame.extend([2, 0, 0, 0, 0, 9]);
    frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.extend([2, 0, 0, 0, 0, 9, 10, 0, 0, 2]);
    frame.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    frame
}

#[test]
fn a_real_tap_carries_packets_both_ways_until_it_is_deleted() {
    in_own_network(|| {
        let tap = Tap::open("tap0").unwrap();
        ip("address add 10.0.0.1/24 dev tap0");
        ip("link set tap0 up");
        let mut wire = Wire::on(tap, File::open("/dev/null").unwrap());
        wire.restart(wire.guest.offered());
        let before = host_received();
        let question = who_has();
        wire.put(DATA, &question);
        let len = u32::try_from(question.len()).unwrap();
        for n in 0..16 {
            wire.offer(&[(DATA + 0x1000 + n * 0x800, 0x800)]);
        }
        wire.send(&[(DATA, len, false)]);
        let after = host_received();
        assert_eq!((after.0 - before.0, after.1 - before.1), (1, 42));
        // The host answers that it has 10.0.0.1; other packets of its own may come first.
        let mut answered = false;
        for n in 0..16 {
            let used = wire.receive();
            let got = wire.get(DATA + 0x1000 + n * 0x800, 54);
            assert!(used > 12 && got[NUM_BUFFERS] == 1);
            answered |=
                got[24..34] == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2] && got[40..44] == [10, 0, 0, 1];
            if answered {
                break;
            }
        }
        assert!(answered);

        ip("link delete tap0");
        wire.restart(MERGED);
        stays_alive_and_idle(&mut wire);
    });
}

#[test]
fn errors_name_the_tap() {
    in_own_network(|| {
        let tap = Tap::open("tap0").unwrap();
        let taken = Tap::open("tap0").unwrap_err();
        assert!(matches!(taken, TapError::Taken(_)), "{taken}");
        assert!(taken.to_string().contains("tap0"));
        let unusable = Tap::open("lo").unwrap_err();
        assert!(matches!(unusable, TapError::Unusable { .. }), "{unusable}");
        let long = Tap::open("a-name-of-16-byte").unwrap_err();
        assert!(matches!(long, TapError::Unusable { .. }));

        let handed_over = || tap.as_fd().try_clone_to_owned().unwrap().into_raw_fd();
        Tap::inherited(handed_over(), "tap0").unwrap();
        assert!(Tap::inherited(handed_over(), "tap1").is_err(), "another's");
        let file = File::open("/dev/null").unwrap().into_raw_fd();
        assert!(Tap::inherited(file, "tap0").is_err(), "no tap at all");
        assert!(Tap::inherited(1_000_000, "tap0").is_err(), "not open");
    });
}
