//! The header of every packet (section 5.10.6) as owned data.

/// Bytes of `struct virtio_vsock_hdr`.
pub(super) const HEADER: usize = 44;
/// CID of the host (section 5.10.4).
pub(super) const HOST_CID: u64 = 2;
/// Type of a stream socket, the only supported one.
pub(super) const STREAM: u16 = 1;

/// Operations (section 5.10.6).
pub(super) mod op {
    /// Requests a connection.
    pub const REQUEST: u16 = 1;
    /// Accepts a connection.
    pub const RESPONSE: u16 = 2;
    /// Refuses or resets a connection.
    pub const RST: u16 = 3;
    /// Ends one direction or both.
    pub const SHUTDOWN: u16 = 4;
    /// Carries bytes.
    pub const RW: u16 = 5;
    /// Announces free buffer space.
    pub const CREDIT_UPDATE: u16 = 6;
    /// Requests a credit update.
    pub const CREDIT_REQUEST: u16 = 7;
}

/// Flag of [`op::SHUTDOWN`]: the sender receives no more data.
pub(super) const NO_RECEIVE: u32 = 1;
/// Flag of [`op::SHUTDOWN`]: the sender sends no more data.
pub(super) const NO_SEND: u32 = 2;
/// Both directions.
pub(super) const NEITHER: u32 = NO_RECEIVE | NO_SEND;

/// A connection, identified by its two ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ports {
    pub host: u32,
    pub guest: u32,
}

/// `struct virtio_vsock_hdr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub src_cid: u64,
    pub dst_cid: u64,
    pub src_port: u32,
    pub dst_port: u32,
    pub len: u32,
    pub kind: u16,
    pub op: u16,
    pub flags: u32,
    pub buf_alloc: u32,
    pub fwd_cnt: u32,
}

/// Removes the first `N` bytes of `bytes`, which is long enough.
fn take<const N: usize>(bytes: &mut &[u8]) -> [u8; N] {
    match bytes.split_first_chunk() {
        Some((first, rest)) => {
            *bytes = rest;
            *first
        }
        None => [0; N],
    }
}

impl Header {
    pub(super) fn parse(bytes: &[u8; HEADER]) -> Self {
        let mut rest = bytes.as_slice();
        let rest = &mut rest;
        // In the order of the structure.
        Self {
            src_cid: u64::from_le_bytes(take(rest)),
            dst_cid: u64::from_le_bytes(take(rest)),
            src_port: u32::from_le_bytes(take(rest)),
            dst_port: u32::from_le_bytes(take(rest)),
            len: u32::from_le_bytes(take(rest)),
            kind: u16::from_le_bytes(take(rest)),
            op: u16::from_le_bytes(take(rest)),
            flags: u32::from_le_bytes(take(rest)),
            buf_alloc: u32::from_le_bytes(take(rest)),
            fwd_cnt: u32::from_le_bytes(take(rest)),
        }
    }

    pub(super) fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(self.src_cid.to_le_bytes());
        bytes.extend(self.dst_cid.to_le_bytes());
        for word in [self.src_port, self.dst_port, self.len] {
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(self.kind.to_le_bytes());
        bytes.extend(self.op.to_le_bytes());
        for word in [self.flags, self.buf_alloc, self.fwd_cnt] {
            bytes.extend(word.to_le_bytes());
        }
        bytes
    }

    /// Returns the ports of a packet from the guest.
    pub(super) fn ports(&self) -> Ports {
        Ports {
            host: self.dst_port,
            guest: self.src_port,
        }
    }

    /// Returns the RST that refuses a packet of the guest at `guest_cid`.
    pub(super) fn refusal(&self, guest_cid: u64) -> Self {
        Self {
            src_cid: self.dst_cid,
            dst_cid: guest_cid,
            src_port: self.dst_port,
            dst_port: self.src_port,
            kind: self.kind,
            op: op::RST,
            ..Self::default()
        }
    }
}
