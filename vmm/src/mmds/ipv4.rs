//! IPv4 (RFC 791) for a single host: no routes and no fragments; options are skipped.

use std::net::Ipv4Addr;

/// Size of a header without options in bytes.
pub const HEADER: usize = 20;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
const DONT_FRAGMENT: u16 = 0x4000;
/// Mask of "more fragments" and the fragment offset.
const FRAGMENT: u16 = 0x3fff;
const TTL: u8 = 64;

/// Returns the destination of the packet that begins with `head`. The rest of the packet is not checked.
pub fn destination(head: &[u8]) -> Option<Ipv4Addr> {
    let header = head.first_chunk::<HEADER>()?;
    let [.., a, b, c, d] = *header;
    (header[0] >> 4 == 4).then_some(Ipv4Addr::new(a, b, c, d))
}

/// A received packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Source address.
    pub source: Ipv4Addr,
    /// Protocol of the payload.
    pub protocol: u8,
    /// All bytes after the header and its options.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Parses a packet, which may be followed by padding. Fragments are refused. The header checksum is not verified, because
    /// there is no wire between the guest's driver and this process.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER>()?;
        let header_len = usize::from(header[0] & 0xf) * 4;
        let total_len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let fragment = u16::from_be_bytes([header[6], header[7]]) & FRAGMENT;
        if header[0] >> 4 != 4 || header_len < HEADER || fragment != 0 {
            return None;
        }
        Some(Self {
            source: Ipv4Addr::new(header[12], header[13], header[14], header[15]),
            protocol: header[9],
            payload: bytes.get(header_len..total_len)?,
        })
    }
}

/// Returns the header of a packet from the service with `payload_len` bytes of payload; `None` if that is too long.
pub fn header(from: Ipv4Addr, to: Ipv4Addr, payload_len: usize) -> Option<[u8; HEADER]> {
    let total_len = u16::try_from(HEADER + payload_len).ok()?;
    let mut header = [0; HEADER];
    let fields = [0x45, 0]
        .into_iter()
        .chain(total_len.to_be_bytes())
        // A packet that is never fragmented needs no identification (RFC 6864).
        .chain([0, 0])
        .chain(DONT_FRAGMENT.to_be_bytes())
        .chain([TTL, TCP, 0, 0])
        .chain(from.octets())
        .chain(to.octets());
    for (byte, value) in header.iter_mut().zip(fields) {
        *byte = value;
    }
    let checksum = Checksum::default().with(&header).value();
    [header[10], header[11]] = checksum.to_be_bytes();
    Some(header)
}

/// The Internet checksum (RFC 1071) over several pieces. All but the last have an even length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum(u64);

impl Checksum {
    /// Returns the checksum of TCP's pseudo header for a segment of `len` bytes.
    pub fn of_pseudo_header(from: Ipv4Addr, to: Ipv4Addr, len: usize) -> Self {
        Self(u64::from(TCP) + len as u64)
            .with(&from.octets())
            .with(&to.octets())
    }

    /// Adds `bytes` to the checksum.
    #[must_use]
    pub fn with(self, bytes: &[u8]) -> Self {
        let words = bytes.chunks(2).map(|pair| match *pair {
            [hi, lo] => u64::from(u16::from_be_bytes([hi, lo])),
            [hi] => u64::from(hi) << 8,
            _ => 0,
        });
        Self(self.0 + words.sum::<u64>())
    }

    /// Returns the value for the header.
    pub fn value(self) -> u16 {
        let mut sum = self.0;
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        // The carries are folded, so the sum fits.
        !u16::try_from(sum).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "ipv4_test.rs"]
mod ipv4_test;
