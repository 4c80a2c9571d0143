//! Ethernet II frames, without VLAN tags.

/// Size of the header in bytes.
pub const HEADER: usize = 14;
/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;

/// A MAC address.
pub type Mac = [u8; 6];

/// MAC address of the service: locally administered, and never given to a card.
pub const OUR_MAC: Mac = [0x06, 0x01, 0x23, 0x45, 0x67, 0x01];

/// A received frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Source address.
    pub source: Mac,
    /// Type of the payload.
    pub ethertype: u16,
    /// All bytes after the header, with padding.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Parses the header. The destination does not matter, because the IP address decides.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<HEADER>()?;
        let [_, _, _, _, _, _, source @ .., hi, lo] = *header;
        Some(Self {
            source,
            ethertype: u16::from_be_bytes([hi, lo]),
            payload,
        })
    }
}

/// Returns the header of a frame from the service.
pub fn header(to: Mac, ethertype: u16) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    let fields = to.into_iter().chain(OUR_MAC).chain(ethertype.to_be_bytes());
    for (byte, value) in header.iter_mut().zip(fields) {
        *byte = value;
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_frame_is_read_back() {
        let frame = [&header([2; 6], ARP)[..], b"payload"].concat();
        assert_eq!(frame[..6], [2; 6]);
        let read = Frame::parse(&frame).unwrap();
        assert_eq!((read.source, read.ethertype), (OUR_MAC, ARP));
        assert_eq!(read.payload, b"payload");
        assert!(Frame::parse(&frame[..13]).is_none());
    }
}
