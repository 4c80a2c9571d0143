//! TCP segments (RFC 9293), and arithmetic of sequence numbers.

use super::ipv4::Checksum;
use std::net::Ipv4Addr;

/// Size of a header without options in bytes.
pub const HEADER: usize = 20;
/// Size of the header of a SYN in bytes.
pub const SYN_HEADER: usize = HEADER + 4;
/// Flag: the sender closes its side.
pub const FIN: u8 = 0x01;
/// Flag: the segment opens the connection.
pub const SYN: u8 = 0x02;
/// Flag: the connection is reset.
pub const RST: u8 = 0x04;
/// Flag: push the data to the application.
pub const PSH: u8 = 0x08;
/// Flag: the acknowledgment number is valid.
pub const ACK: u8 = 0x10;

/// Offset of the checksum.
const CHECKSUM: usize = 16;

const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;

/// A sequence number, modulo 2^32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seq(pub u32);

impl Seq {
    /// Returns the number `n` after this one.
    #[must_use]
    pub fn plus(self, n: usize) -> Self {
        // Only the value modulo 2^32 matters.
        let [a, b, c, d, ..] = n.to_le_bytes();
        Self(self.0.wrapping_add(u32::from_le_bytes([a, b, c, d])))
    }

    /// Returns the distance from `earlier` to this number.
    pub fn since(self, earlier: Self) -> usize {
        usize::try_from(self.0.wrapping_sub(earlier.0)).unwrap_or(usize::MAX)
    }

    /// Returns whether this number is before `other`, which is less than 2^31 away (section 3.4).
    pub fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) > u32::MAX / 2
    }

    /// Returns whether this number is after `other`.
    pub fn is_after(self, other: Self) -> bool {
        other.is_before(self)
    }
}

/// A received segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub port: u16,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: Seq,
    /// Next sequence number that the sender expects, if [`ACK`] is set.
    pub ack: Seq,
    /// Flags such as [`FIN`].
    pub flags: u8,
    /// Bytes that the sender takes after `ack`. Never scaled, because this side does not offer it.
    pub window: u16,
    /// Maximum segment size option.
    pub mss: Option<u16>,
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Parses a segment. The checksum is not verified, because a guest leaves it open.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header = bytes.first_chunk::<HEADER>()?;
        let [
            s0,
            s1,
            p0,
            p1,
            q0,
            q1,
            q2,
            q3,
            a0,
            a1,
            a2,
            a3,
            offset,
            flags,
            w0,
            w1,
            ..,
        ] = *header;
        let header_len = usize::from(offset >> 4) * 4;
        let options = bytes.get(HEADER..header_len)?;
        Some(Self {
            source_port: u16::from_be_bytes([s0, s1]),
            port: u16::from_be_bytes([p0, p1]),
            seq: Seq(u32::from_be_bytes([q0, q1, q2, q3])),
            ack: Seq(u32::from_be_bytes([a0, a1, a2, a3])),
            flags,
            window: u16::from_be_bytes([w0, w1]),
            mss: mss_option(options),
            payload: bytes.get(header_len..)?,
        })
    }

    /// Returns whether all of `flags` are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// Returns the number of sequence numbers that the segment uses.
    pub fn seq_len(&self) -> usize {
        self.payload.len() + usize::from(self.has(SYN)) + usize::from(self.has(FIN))
    }

    /// Returns the reset that answers a segment of no connection (section 3.10.7.1). A reset is not answered.
    pub fn reset(&self) -> Option<Header> {
        if self.has(RST) {
            return None;
        }
        let (seq, ack, flags) = match self.has(ACK) {
            true => (self.ack, Seq(0), RST),
            false => (Seq(0), self.seq.plus(self.seq_len()), RST | ACK),
        };
        Some(Header {
            port: self.port,
            peer_port: self.source_port,
            seq,
            ack,
            flags,
            window: 0,
            mss: None,
        })
    }
}

/// Returns the maximum segment size among `options`, as far as they are valid.
fn mss_option(mut options: &[u8]) -> Option<u16> {
    loop {
        options = match *options {
            [] | [OPTION_END, ..] => return None,
            [OPTION_NOTHING, ref rest @ ..] => rest,
            [OPTION_MSS, 4, hi, lo, ..] => return Some(u16::from_be_bytes([hi, lo])),
            // The length includes the kind and itself.
            [_, len, ..] if len >= 2 => options.get(usize::from(len)..)?,
            [_, ..] => return None,
        };
    }
}

/// The header of a segment from the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Port of the service.
    pub port: u16,
    /// Port of the guest.
    pub peer_port: u16,
    /// Sequence number of the first byte, or of the SYN.
    pub seq: Seq,
    /// Next expected sequence number.
    pub ack: Seq,
    /// Flags such as [`FIN`].
    pub flags: u8,
    /// Bytes that this side takes after `ack`.
    pub window: u16,
    /// Maximum segment size option.
    pub mss: Option<u16>,
}

impl Header {
    /// Returns the size of the header in bytes.
    pub fn size(&self) -> usize {
        match self.mss {
            Some(_) => SYN_HEADER,
            None => HEADER,
        }
    }

    /// Writes the segment with its checksum to `out`, which has exactly its length.
    pub fn write(&self, from: Ipv4Addr, to: Ipv4Addr, payload: &[u8], out: &mut [u8]) {
        let words = u8::try_from(self.size() / 4).unwrap_or_default();
        let option = self.mss.map(|mss| {
            let [hi, lo] = mss.to_be_bytes();
            [OPTION_MSS, 4, hi, lo]
        });
        let fields = self
            .port
            .to_be_bytes()
            .into_iter()
            .chain(self.peer_port.to_be_bytes())
            .chain(self.seq.0.to_be_bytes())
            .chain(self.ack.0.to_be_bytes())
            .chain([words << 4, self.flags])
            .chain(self.window.to_be_bytes())
            // Checksum, filled in below, and urgent pointer.
            .chain([0; 4])
            .chain(option.into_iter().flatten());
        for (byte, value) in out.iter_mut().zip(fields) {
            *byte = value;
        }
        if let Some(data) = out.get_mut(self.size()..)
            && data.len() == payload.len()
        {
            data.copy_from_slice(payload);
        }
        let sum = Checksum::of_pseudo_header(from, to, out.len()).with(out);
        for (byte, value) in out.iter_mut().skip(CHECKSUM).zip(sum.value().to_be_bytes()) {
            *byte = value;
        }
    }
}

#[cfg(test)]
#[path = "tcp_test.rs"]
mod tcp_test;
