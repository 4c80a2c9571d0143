//! TCP segments (RFC 9293) as bytes, and the arithmetic of their sequence numbers.

use super::ipv4::Checksum;
use std::net::Ipv4Addr;

/// Bytes of a header without options.
pub const HEADER: usize = 20;
/// Bytes of the header of a segment that opens a connection.
pub const SYN_HEADER: usize = HEADER + 4;
/// No more data from the sender.
pub const FIN: u8 = 0x01;
/// The first segment.
pub const SYN: u8 = 0x02;
/// The connection is no more.
pub const RST: u8 = 0x04;
/// Give it to the application now.
pub const PSH: u8 = 0x08;
/// The acknowledgment number means something.
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
    /// The number `n` further on.
    #[must_use]
    pub fn plus(self, n: usize) -> Self {
        // Nothing here is longer than 2^32; if it were, this would be the same modulo 2^32.
        let [a, b, c, d, ..] = n.to_le_bytes();
        Self(self.0.wrapping_add(u32::from_le_bytes([a, b, c, d])))
    }

    /// How far it is after `earlier`, which is not after it.
    pub fn since(self, earlier: Self) -> usize {
        usize::try_from(self.0.wrapping_sub(earlier.0)).unwrap_or(usize::MAX)
    }

    /// Whether it is before `other`, which is less than 2^31 away (section 3.4).
    pub fn is_before(self, other: Self) -> bool {
        self.0.wrapping_sub(other.0) > u32::MAX / 2
    }

    /// Whether it is after `other`.
    pub fn is_after(self, other: Self) -> bool {
        other.is_before(self)
    }
}

/// A received segment.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// The port of who sent it.
    pub source_port: u16,
    /// The port it is for.
    pub port: u16,
    /// The number of its first byte, or of its SYN.
    pub seq: Seq,
    /// The number of the next byte the sender waits for, if [`ACK`] is set.
    pub ack: Seq,
    /// [`FIN`] and so on.
    pub flags: u8,
    /// How many bytes after `ack` the sender takes. Never scaled, because we do not offer that.
    pub window: u16,
    /// The option of that name.
    pub mss: Option<u16>,
    /// The data.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a segment. Its checksum is not looked at: a guest leaves it open.
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

    /// Whether all of `flags` are set.
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// How many sequence numbers it takes.
    pub fn seq_len(&self) -> usize {
        self.payload.len() + usize::from(self.has(SYN)) + usize::from(self.has(FIN))
    }

    /// The answer to a segment of no connection (section 3.10.7.1); a reset has none.
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

/// The maximum segment size among `options`, as far as they can be read.
fn mss_option(mut options: &[u8]) -> Option<u16> {
    loop {
        options = match *options {
            [] | [OPTION_END, ..] => return None,
            [OPTION_NOTHING, ref rest @ ..] => rest,
            [OPTION_MSS, 4, hi, lo, ..] => return Some(u16::from_be_bytes([hi, lo])),
            // A length counts itself and the kind.
            [_, len, ..] if len >= 2 => options.get(usize::from(len)..)?,
            [_, ..] => return None,
        };
    }
}

/// The header of a segment of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Our port.
    pub port: u16,
    /// The guest's.
    pub peer_port: u16,
    /// The number of the first byte, or of the SYN.
    pub seq: Seq,
    /// The number of the next byte we wait for.
    pub ack: Seq,
    /// [`FIN`] and so on.
    pub flags: u8,
    /// How many bytes after `ack` we take.
    pub window: u16,
    /// The option of that name.
    pub mss: Option<u16>,
}

impl Header {
    /// How many bytes it is.
    pub fn size(&self) -> usize {
        match self.mss {
            Some(_) => SYN_HEADER,
            None => HEADER,
        }
    }

    /// Puts the segment into `out`, as long as the header and `payload`, with its checksum.
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
            // The checksum, still open, and no urgent data.
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
