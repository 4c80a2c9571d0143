//! A restored guest: its connections are closed, and it is notified.

use super::vsock_test::*;
use super::*;
use std::io::{Read as _, Write as _};
use vm_memory::{Bytes as _, GuestAddress};

/// Address of the guest's event buffers.
const EVENT: u64 = 0x9_0000;

impl Bench {
    fn offer_event(&mut self, len: u32) {
        let at = GuestAddress(EVENT);
        self.guest.mem.write_slice(&[0xff; 64], at).unwrap();
        self.events.add(&self.guest.mem, &[(EVENT, len, true)]);
        self.guest.kick(2);
    }

    fn no_event(&mut self) {
        self.guest.settle();
        assert_eq!(self.events.take_used(&self.guest.mem), None);
    }

    fn is_notified(&mut self) {
        let (_, len) = self.guest.wait_used(&mut self.events);
        let mut event = [0; 8];
        self.guest
            .mem
            .read_slice(&mut event, GuestAddress(EVENT))
            .unwrap();
        assert_eq!((len, event), (4, [0, 0, 0, 0, 255, 255, 255, 255]));
    }
}

#[test]
fn a_restored_guest_is_notified_once_that_its_connections_are_closed() {
    let mut bench = Bench::new();
    bench.offer_event(64);
    bench.no_event();
    let (ports, mut client) = bench.asked_by_host();
    let mut bench = bench.restored();
    ends(&mut client);
    bench.resume();
    bench.is_notified();
    bench.guest.settle();
    assert!(bench.guest.interrupted());
    bench.offer_event(64);
    bench.no_event();
    lock(&bench.guest.transport).pause();
    bench.resume();
    bench.no_event();

    // A late packet of an old connection is refused, and a new client gets a port that no old connection had.
    bench.say(data(ports, b"late"), b"late");
    bench.hears(op::RST);
    let (others, mut client) = bench.asked_by_host();
    assert_ne!(others, ports);
    bench.say(data(others, b"new"), b"new");
    let mut heard = [0; 3];
    client.read_exact(&mut heard).unwrap();
    assert_eq!(heard, *b"new");
    client.write_all(b"back").unwrap();
    assert_eq!(bench.hear().1, b"back");

    // After another save and restore it is notified again.
    let mut bench = bench.restored();
    bench.resume();
    bench.is_notified();
}

#[test]
fn the_notification_waits_for_an_event_buffer() {
    let mut bench = Bench::new().restored();
    bench.resume();
    bench.no_event();
    lock(&bench.guest.transport).pause();
    bench.resume();
    bench.offer_event(4);
    bench.is_notified();
    bench.offer_event(4);
    bench.no_event();
}

#[test]
fn a_new_driver_is_not_notified_about_earlier_connections() {
    let mut bench = Bench::new().restored();
    bench.resume();
    bench.restart();
    bench.offer_event(64);
    bench.no_event();
    assert_eq!(bench.guest.read(0x70), 15);
}

#[test]
fn a_buffer_too_short_for_the_event_is_survived() {
    let mut bench = Bench::new();
    bench.offer_event(3);
    let mut bench = bench.restored();
    bench.resume();
    bench.no_event();
    assert_eq!(bench.guest.read(0x70), 15);
    bench.offer();
    bench.asked_by_host();
}

#[test]
fn a_state_with_a_port_outside_the_client_range_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut vsock = Vsock::new(&config(&dir)).unwrap();
    let good = vsock.save();
    for next_port in [0, 1, (1 << 30) - 1, 1 << 31, u32::MAX] {
        let state = DeviceState::encode(1, &Saved { next_port });
        assert_eq!(vsock.restore(&state), Err(StateError::Value("port")));
    }
    assert_eq!(vsock.save(), good);
    assert!(!lock(&vsock.router).owes_reset());
}
