//! Established connections: credit, half closes and resets.

use super::vsock_test::*;
use crate::lock;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// More bytes than all buffers of the path hold.
const MUCH: usize = 3 << 20;
const BUFFER: usize = super::connection::BUFFER;

/// Bytes with a pattern that shows a loss.
fn pattern(len: usize) -> Vec<u8> {
    (0_u8..251).cycle().take(len).collect()
}

fn shutdown(ports: Ports, flags: u32) -> Header {
    Header {
        flags,
        ..packet(ports, op::SHUTDOWN)
    }
}

#[test]
fn a_slow_guest_gets_all_bytes_within_its_credit() {
    let mut bench = Bench::new();
    let (ports, client) = bench.asked_by_host();
    let sent = pattern(MUCH);
    let writer = std::thread::spawn({
        let (mut client, sent) = (client.try_clone().unwrap(), sent.clone());
        move || client.write_all(&sent)
    });
    let mut got = Vec::new();
    let (mut used, mut asked) = (0, 0);
    while got.len() < MUCH {
        let (header, payload) = bench.hear();
        match header.op {
            op::RW => got.extend(payload),
            // The guest's application reads at last.
            op::CREDIT_REQUEST => {
                asked += 1;
                assert_eq!(got.len() - used, GUEST_ROOM as usize);
                bench.hear_nothing();
                used = got.len();
                let update = Header {
                    fwd_cnt: u32::try_from(used).unwrap(),
                    ..packet(ports, op::CREDIT_UPDATE)
                };
                bench.say(update, &[]);
            }
            other => panic!("operation {other}"),
        }
        assert!(got.len() - used <= GUEST_ROOM as usize);
    }
    writer.join().unwrap().unwrap();
    assert!(got == sent, "bytes were lost");
    assert!(asked >= 10);
}

#[test]
fn a_slow_host_gets_all_bytes_of_a_guest_that_respects_the_credit() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    let (other_ports, mut other) = bench.asked_by_host();
    let all = pattern(MUCH);
    let (mut sent, mut forwarded) = (0, 0);
    let mut got = Vec::new();
    while sent < MUCH {
        let credit = BUFFER - (sent - forwarded);
        let len = credit.min(MUCH - sent).min(INBOX as usize);
        if len > 0 {
            let piece = &all[sent..sent + len];
            bench.say(data(ports, piece), piece);
            sent += len;
        } else {
            // A stuck host does not delay other connections.
            bench.say(data(other_ports, b"x"), b"x");
            other.read_exact(&mut [0]).unwrap();
            let mut some = vec![0; 100_000];
            let len = client.read(&mut some).unwrap();
            got.extend(&some[..len]);
        }
        bench.guest.settle();
        while let Some((header, _)) = bench.hear_now() {
            assert_eq!(header.op, op::CREDIT_UPDATE);
            if header.src_port == ports.host {
                forwarded = header.fwd_cnt as usize;
            }
        }
    }
    assert!(!got.is_empty(), "the host was never in the way");
    let mut rest = vec![0; MUCH - got.len()];
    client.read_exact(&mut rest).unwrap();
    got.extend(rest);
    assert!(got == all, "bytes were lost");
}

/// Fills the socket until bytes stay in the device's buffer. Returns the number of bytes sent.
fn fill(bench: &mut Bench, ports: Ports) -> usize {
    let piece = [0x5a; INBOX as usize];
    let (mut sent, mut forwarded) = (0, 0);
    while sent - forwarded + piece.len() <= BUFFER {
        bench.say(data(ports, &piece), &piece);
        sent += piece.len();
        bench.guest.settle();
        while let Some((header, _)) = bench.hear_now() {
            forwarded = header.fwd_cnt as usize;
        }
        if sent - forwarded + piece.len() > BUFFER {
            bench.say(packet(ports, op::CREDIT_REQUEST), &[]);
            forwarded = bench.hears(op::CREDIT_UPDATE).fwd_cnt as usize;
        }
    }
    sent
}

#[test]
fn a_guest_that_exceeds_its_credit_loses_the_connection() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    let sent = fill(&mut bench, ports);
    bench.say(data(ports, &[0; 1]), &[0; 1]);
    bench.hears(op::RST);
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(got.len() <= sent);
    // In one packet, and by a header alone.
    let (ports, mut client) = bench.asked_by_host();
    let too_much = vec![0; BUFFER + 1];
    bench.say(data(ports, &too_much), &too_much);
    bench.hears(op::RST);
    ends(&mut client);
}

#[test]
fn impossible_credit_stops_only_the_guest_s_own_data() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    for (buf_alloc, fwd_cnt) in [(0, 0), (1 << 20, 1 << 31), (0, u32::MAX)] {
        let update = Header {
            buf_alloc,
            fwd_cnt,
            ..packet(ports, op::CREDIT_UPDATE)
        };
        bench.say(update, &[]);
        client.write_all(b"x").unwrap();
        bench.hears(op::CREDIT_REQUEST);
        bench.hear_nothing();
        assert!(bench.event_loop.rests());
    }
    bench.say(packet(ports, op::CREDIT_UPDATE), &[]);
    assert_eq!(bench.hear().1, b"xxx");
}

#[test]
fn after_the_host_shuts_down_sending_it_still_receives() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    client.write_all(b"last").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(bench.hear().1, b"last");
    assert_eq!(bench.hears(op::SHUTDOWN).flags, NO_SEND);
    bench.say(data(ports, b"answer"), b"answer");
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    bench.say(shutdown(ports, NEITHER), &[]);
    bench.hears(op::RST);
    ends(&mut client);
    bench.hear_nothing();
}

#[test]
fn after_the_guest_shuts_down_sending_it_still_receives() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    bench.say(data(ports, b"last"), b"last");
    bench.say(shutdown(ports, NO_SEND), &[]);
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"last");
    client.write_all(b"answer").unwrap();
    assert_eq!(bench.hear().1, b"answer");
    drop(client);
    assert_eq!(bench.hears(op::SHUTDOWN).flags, NEITHER);
    bench.say(packet(ports, op::RST), &[]);
    bench.hear_nothing();
}

#[test]
fn a_guest_that_shut_down_receiving_gets_no_data() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    bench.say(shutdown(ports, NO_RECEIVE), &[]);
    bench.guest.settle();
    let error = client.write_all(b"x").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
    bench.say(data(ports, b"more"), b"more");
    let mut more = [0; 4];
    client.read_exact(&mut more).unwrap();
    drop(client);
    assert_eq!(bench.hears(op::SHUTDOWN).flags, NEITHER);
    // Data after the guest shut down sending is a protocol violation.
    bench.say(shutdown(ports, NO_SEND), &[]);
    bench.hears(op::RST);
}

#[test]
fn data_after_the_guest_shut_down_sending_closes_the_connection() {
    let mut bench = Bench::new();
    let (ports, _client) = bench.asked_by_host();
    bench.say(shutdown(ports, NO_SEND), &[]);
    bench.say(data(ports, b"more"), b"more");
    bench.hears(op::RST);
}

#[test]
fn all_data_of_a_guest_that_closes_is_delivered() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    let sent = fill(&mut bench, ports);
    bench.say(shutdown(ports, NEITHER), &[]);
    // Not before the host has read.
    bench.hear_nothing();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert!(all == vec![0x5a; sent], "{} of {sent}", all.len());
    loop {
        match bench.hear().0.op {
            op::RST => break,
            other => assert_eq!(other, op::CREDIT_UPDATE),
        }
    }
    bench.hear_nothing();
}

#[test]
fn all_data_of_a_guest_that_resets_is_delivered() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    let (other_ports, mut other) = bench.asked_by_host();
    let sent = fill(&mut bench, ports);
    bench.say(shutdown(ports, NEITHER), &[]);
    bench.say(packet(ports, op::RST), &[]);
    bench.say(data(ports, b"late"), b"late");
    bench.hears(op::RST);
    lock(&bench.guest.transport).pause();
    lock(&bench.guest.transport).resume();
    let mut all = Vec::new();
    client.read_to_end(&mut all).unwrap();
    assert!(all == vec![0x5a; sent], "{} of {sent}", all.len());
    bench.hear_nothing();
    // A connection that is reset by a protocol violation is closed at once.
    fill(&mut bench, other_ports);
    bench.say(packet(other_ports, op::RST), &[]);
    other.read_to_end(&mut all).unwrap();
    bench.hear_nothing();
}

#[test]
fn a_guest_may_reuse_a_port_that_it_reset() {
    let mut bench = Bench::new();
    let ports = Ports { host: 5, guest: 6 };
    let _stuck = bench.asked_by_guest(ports);
    fill(&mut bench, ports);
    bench.say(shutdown(ports, NEITHER), &[]);
    bench.say(packet(ports, op::RST), &[]);
    std::fs::remove_file(bench.path().join("v_5")).unwrap();
    let mut again = bench.asked_by_guest(ports);
    again.write_all(b"new").unwrap();
    assert_eq!(bench.hear().1, b"new");
}

#[test]
fn the_guest_learns_of_a_closed_host_socket_after_its_data() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    client.write_all(&pattern(100_000)).unwrap();
    drop(client);
    let mut got = Vec::new();
    let flags = loop {
        let (header, payload) = bench.hear();
        match header.op {
            op::RW => got.extend(payload),
            op => break (op, header.flags),
        }
    };
    assert_eq!(flags, (op::SHUTDOWN, NEITHER));
    assert!(got == pattern(100_000));
    // Bytes that arrive meanwhile are dropped.
    for _ in 0..20 {
        bench.say(data(ports, &[1; 4096]), &[1; 4096]);
        bench.guest.settle();
        while let Some((header, _)) = bench.hear_now() {
            assert_eq!(header.op, op::CREDIT_UPDATE);
        }
    }
    bench.say(packet(ports, op::RST), &[]);
    bench.hear_nothing();
}

#[test]
fn a_host_that_closes_with_unread_data_resets_the_connection() {
    let mut bench = Bench::new();
    let (ports, client) = bench.asked_by_host();
    bench.say(data(ports, b"unread"), b"unread");
    drop(client);
    bench.hears(op::RST);
    bench.hear_nothing();
}

#[test]
fn the_guest_learns_that_the_host_stopped_reading() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    client.shutdown(Shutdown::Read).unwrap();
    bench.say(data(ports, b"x"), b"x");
    assert_eq!(bench.hears(op::SHUTDOWN).flags, NO_RECEIVE);
    client.write_all(b"still").unwrap();
    assert_eq!(bench.hear().1, b"still");
}

#[test]
fn a_device_reset_closes_all_connections() {
    let mut bench = Bench::new();
    let (_, mut client) = bench.asked_by_host();
    let mut silent = bench.connect();
    bench.guest.settle();
    bench.guest.write(0x70, 0);
    ends(&mut client);
    ends(&mut silent);
    // A client that connects now waits for the next driver.
    let mut early = bench.connect();
    early.write_all(b"CONNECT 3\n").unwrap();
    bench.restart();
    bench.offer();
    assert_eq!(bench.hears(op::REQUEST).dst_port, 3);
    let _client = bench.asked_by_host();
    bench.hear_nothing();
}

#[test]
fn a_pause_keeps_all_connections() {
    let mut bench = Bench::new();
    let (ports, mut client) = bench.asked_by_host();
    let mut partial = bench.connect();
    partial.write_all(b"CONN").unwrap();
    bench.guest.settle();
    for _ in 0..3 {
        lock(&bench.guest.transport).pause();
        client.write_all(b"meanwhile").unwrap();
        partial.write_all(b"").unwrap();
        let early = bench.connect();
        bench.post(data(ports, b"posted"), b"posted");
        bench.guest.settle();
        assert_eq!(bench.hear_now(), None);
        lock(&bench.guest.transport).resume();
        assert_eq!(bench.hear().1, b"meanwhile");
        let mut posted = [0; 6];
        client.read_exact(&mut posted).unwrap();
        assert_eq!(&posted, b"posted");
        drop(early);
    }
    partial.write_all(b"ECT 5\n").unwrap();
    assert_eq!(bench.hears(op::REQUEST).dst_port, 5);
}

#[test]
fn a_guest_without_buffers_does_not_wake_the_loop() {
    let mut bench = Bench::without_buffers();
    let mut clients: Vec<UnixStream> = (0..20).map(|_| bench.connect()).collect();
    for client in &mut clients {
        client.write_all(b"CONNECT 1\nearly").unwrap();
    }
    bench.guest.settle();
    assert!(bench.event_loop.rests());
    std::thread::sleep(Duration::from_millis(1));
    for _ in 0..8 {
        bench.offer();
    }
    for _ in 0..20 {
        bench.hears(op::REQUEST);
    }
    bench.hear_nothing();
}

#[test]
fn connections_take_turns() {
    let mut bench = Bench::new();
    let (first, mut busy) = bench.asked_by_host();
    let (second, mut brief) = bench.asked_by_host();
    busy.write_all(&pattern(100_000)).unwrap();
    bench.hear();
    brief.write_all(b"x").unwrap();
    bench.guest.settle();
    // The buffers offered earlier hold packets of the busy connection.
    let turns: Vec<_> = (0..12).map(|_| bench.hear().0.src_port).collect();
    assert!(turns.contains(&first.host) && turns.contains(&second.host));
}
