use super::*;

const FROM: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const TO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn header(flags: u8, mss: Option<u16>) -> Header {
    Header {
        port: 80,
        peer_port: 4321,
        seq: Seq(0xffff_fffe),
        ack: Seq(7),
        flags,
        window: 512,
        mss,
    }
}

fn write(header: &Header, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0xee; header.size() + payload.len()];
    header.write(FROM, TO, payload, &mut out);
    out
}

#[test]
fn a_written_segment_is_parsed_back_with_a_valid_checksum() {
    for (flags, mss, payload) in [
        (SYN | ACK, Some(1460), &b""[..]),
        (ACK | PSH, None, b"odd"),
        (RST, None, b""),
    ] {
        let bytes = write(&header(flags, mss), payload);
        let sum = Checksum::of_pseudo_header(FROM, TO, bytes.len()).with(&bytes);
        assert_eq!(sum.value(), 0);
        let read = Segment::parse(&bytes).unwrap();
        assert_eq!((read.source_port, read.port), (80, 4321));
        assert_eq!((read.seq, read.ack), (Seq(0xffff_fffe), Seq(7)));
        assert_eq!((read.flags, read.window, read.mss), (flags, 512, mss));
        assert_eq!(read.payload, payload);
    }
}

#[test]
fn sequence_numbers_wrap_around() {
    let last = Seq(u32::MAX);
    assert_eq!(last.plus(3), Seq(2));
    assert_eq!(Seq(2).since(last), 3);
    assert!(last.is_before(Seq(2)) && Seq(2).is_after(last));
    assert!(!Seq(2).is_before(last) && !last.is_after(Seq(2)));
    assert!(!last.is_before(last) && !last.is_after(last));
    assert!(Seq(0).is_before(Seq(0x7fff_ffff)));
}

#[test]
fn the_maximum_segment_size_is_found_among_options() {
    for (options, mss) in [
        (&[][..], None),
        (&[2, 4, 5, 0xb4], Some(1460)),
        (&[1, 1, 4, 2, 2, 4, 1, 0], Some(256)),
        (&[8, 10, 0, 0, 0, 0, 0, 0, 0, 0, 2, 4, 2, 0], Some(512)),
        (&[0, 2, 4, 5, 0xb4], None),
        (&[2, 3, 5, 0xb4], None),
        (&[9, 0, 2, 4, 5, 0xb4], None),
        (&[9, 1, 2, 4, 5, 0xb4], None),
        (&[9, 40, 2, 4], None),
        (&[2, 4, 5], None),
        (&[9], None),
    ] {
        assert_eq!(mss_option(options), mss, "{options:?}");
    }
}

#[test]
fn headers_with_wrong_lengths_are_refused() {
    let bytes = write(&header(ACK, None), b"data");
    assert!(Segment::parse(&bytes[..19]).is_none());
    for words in 0..16_u8 {
        let mut changed = bytes.clone();
        changed[12] = words << 4;
        assert_eq!(Segment::parse(&changed).is_some(), (5..=6).contains(&words));
    }
}

#[test]
fn a_segment_of_no_connection_is_reset_once() {
    let ack = write(&header(ACK | FIN, None), b"data");
    let reset = Segment::parse(&ack).unwrap().reset().unwrap();
    assert_eq!((reset.seq, reset.flags), (Seq(7), RST));
    assert_eq!((reset.port, reset.peer_port), (4321, 80));
    let syn = write(&header(SYN, None), b"");
    let reset = Segment::parse(&syn).unwrap().reset().unwrap();
    assert_eq!((reset.ack, reset.flags), (Seq(u32::MAX), RST | ACK));
    let rst = write(&header(RST, None), b"");
    assert_eq!(Segment::parse(&rst).unwrap().reset(), None);
}
