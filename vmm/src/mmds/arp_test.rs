use super::*;

const REQUEST_BYTES: [u8; LEN] = [
    0, 1, 8, 0, 6, 4, 0, 1, 2, 3, 4, 5, 6, 7, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 169, 254, 169, 254,
];

#[test]
fn a_request_is_answered_with_the_address_of_the_service() {
    // Frames may be padded.
    let request = Request::parse(&[&REQUEST_BYTES[..], &[0; 18]].concat()).unwrap();
    assert_eq!(request.target, Ipv4Addr::new(169, 254, 169, 254));
    assert_eq!(
        request.reply(),
        [
            0, 1, 8, 0, 6, 4, 0, 2, 6, 1, 0x23, 0x45, 0x67, 1, 169, 254, 169, 254, 2, 3, 4, 5, 6,
            7, 10, 0, 0, 1
        ]
    );
}

#[test]
fn other_packets_are_not_requests() {
    assert_eq!(Request::parse(&REQUEST_BYTES[..27]), None);
    // Another hardware type, other lengths, and a reply.
    for at in 0..8 {
        let mut changed = REQUEST_BYTES;
        changed[at] ^= 3;
        assert_eq!(Request::parse(&changed), None, "{at}");
    }
}
