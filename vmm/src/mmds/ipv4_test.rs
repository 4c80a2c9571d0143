use super::*;

const FROM: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const TO: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

fn packet() -> Vec<u8> {
    let mut packet = header(FROM, TO, 4).unwrap().to_vec();
    packet.extend(*b"data");
    packet
}

#[test]
fn a_written_packet_is_parsed_back() {
    let padded = [&packet()[..], &[0; 22]].concat();
    let read = Packet::parse(&padded).unwrap();
    assert_eq!(
        (read.source, read.protocol, read.payload),
        (FROM, TCP, &b"data"[..])
    );
    assert_eq!(destination(&padded), Some(TO));
    // The sum over a header with its checksum is 0.
    let sum = Checksum::default().with(padded.first_chunk::<HEADER>().unwrap());
    assert_eq!(sum.value(), 0);
    assert_eq!(header(FROM, TO, 65516), None);
}

#[test]
fn the_checksum_is_that_of_rfc_1071() {
    // The example of section 3, and an odd byte.
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(Checksum::default().with(&bytes).value(), !0xddf2);
    assert_eq!(Checksum::default().with(&[1]).value(), !0x100);
    let pieces = Checksum::default().with(&bytes[..2]).with(&bytes[2..]);
    assert_eq!(pieces.value(), !0xddf2);
}

#[test]
fn options_are_skipped() {
    let mut with_option = packet();
    with_option[0] = 0x46;
    with_option[3] += 4;
    with_option.splice(HEADER..HEADER, [1, 1, 1, 0]);
    assert_eq!(Packet::parse(&with_option).unwrap().payload, b"data");
}

#[test]
fn fragments_and_invalid_headers_are_refused() {
    let changed = |at: usize, value: u8| {
        let mut packet = packet();
        packet[at] = value;
        Packet::parse(&packet).is_none()
    };
    assert!(changed(6, 0x20), "more fragments");
    assert!(changed(7, 1), "not the first fragment");
    assert!(changed(0, 0x65), "another version");
    assert!(changed(0, 0x44), "a header shorter than a header");
    assert!(changed(0, 0x4f), "options longer than the packet");
    assert!(changed(3, 19), "a packet shorter than its header");
    assert!(changed(3, 25), "a packet longer than the frame");
    assert!(Packet::parse(&packet()[..19]).is_none());
    assert_eq!(destination(&packet()[..19]), None);
}
