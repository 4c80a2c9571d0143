//! Parses and checks a block request (Virtio 1.2, 5.2.6). Guest memory is read once.

use super::backing::{SECTOR, SECTOR_SHIFT};
use crate::GuestMemory;
use crate::virtio::buffers::{ChainBuffers, Parts};
use std::io;
use std::ops::Range;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_S_UNSUPP, VIRTIO_BLK_T_DISCARD,
    VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT,
    VIRTIO_BLK_T_WRITE_ZEROES, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP,
};

const HEADER: usize = 16;
/// Bytes of `struct virtio_blk_discard_write_zeroes`.
const SEGMENT: usize = 16;

const OK: u8 = status(VIRTIO_BLK_S_OK);
const IO_ERROR: u8 = status(VIRTIO_BLK_S_IOERR);
const UNSUPPORTED: u8 = status(VIRTIO_BLK_S_UNSUPP);

/// Returns a status as the byte in guest memory.
const fn status(value: u32) -> u8 {
    value.to_le_bytes()[0]
}

/// Limits of discard and write-zeroes requests. They bound the work of one request, which may have to write the
/// zeroes.
pub(super) struct RequestBounds {
    /// Largest number of ranges in a request; 0 if neither operation is offered.
    pub(super) segments: u32,
    /// Largest range to discard in sectors (2 GiB).
    pub(super) discard_sectors: u32,
    /// Largest range of zeroes in sectors (32 MiB).
    pub(super) write_zeroes_sectors: u32,
}

impl RequestBounds {
    pub(super) fn new(offered: bool) -> Self {
        match offered {
            true => Self {
                segments: 16,
                discard_sectors: 1 << 22,
                write_zeroes_sectors: 1 << 16,
            },
            false => Self {
                segments: 0,
                discard_sectors: 0,
                write_zeroes_sectors: 0,
            },
        }
    }
}

/// A checked operation. Offsets and ranges are bytes, within the disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Read { offset: u64 },
    Write { offset: u64 },
    Flush,
    Discard { ranges: Vec<Range<u64>> },
    WriteZeroes { ranges: Vec<(Range<u64>, bool)> },
    GetId,
}

pub(super) struct Request {
    kind: u32,
    sector: u64,
    data_out: Parts,
    data_in: Parts,
    status: Parts,
}

impl Request {
    /// Parses the header. Fails if the chain has no room for a header or a status, so that it cannot be answered.
    pub(super) fn parse(mem: &GuestMemory, buffers: ChainBuffers) -> Result<Self, &'static str> {
        let ChainBuffers { readable, writable } = buffers;
        let (header, data_out) = readable.split_at(HEADER).ok_or("the header is short")?;
        let data_in_len = writable.len().checked_sub(1).ok_or("no status byte")?;
        let (data_in, status) = writable.split_at(data_in_len).ok_or("no status byte")?;
        let mut bytes = [0; HEADER];
        let read = header.read(mem, &mut bytes);
        read.map_err(|_| "the header is outside guest memory")?;
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = bytes;
        Ok(Self {
            kind: u32::from_le_bytes([k0, k1, k2, k3]),
            sector: u64::from_le_bytes(sector),
            data_out,
            data_in,
            status,
        })
    }

    pub(super) fn data_in(&self) -> &Parts {
        &self.data_in
    }

    pub(super) fn data_out(&self) -> &Parts {
        &self.data_out
    }

    /// Returns the checked operation, or the error status.
    pub(super) fn check(
        &self,
        mem: &GuestMemory,
        sectors: u64,
        read_only: bool,
        bounds: &RequestBounds,
    ) -> Result<Operation, u8> {
        let offset = |data: &Parts| {
            let len = data.len() as u64;
            if !len.is_multiple_of(SECTOR) {
                return Err(IO_ERROR);
            }
            byte_range(self.sector, len >> SECTOR_SHIFT, sectors).map(|bytes| bytes.start)
        };
        match self.kind {
            VIRTIO_BLK_T_IN => Ok(Operation::Read {
                offset: offset(&self.data_in)?,
            }),
            VIRTIO_BLK_T_FLUSH => Ok(Operation::Flush),
            VIRTIO_BLK_T_GET_ID => Ok(Operation::GetId),
            VIRTIO_BLK_T_OUT | VIRTIO_BLK_T_DISCARD | VIRTIO_BLK_T_WRITE_ZEROES if read_only => {
                Err(IO_ERROR)
            }
            VIRTIO_BLK_T_OUT => Ok(Operation::Write {
                offset: offset(&self.data_out)?,
            }),
            VIRTIO_BLK_T_DISCARD if bounds.segments != 0 => {
                let ranges = self.segments(mem, sectors, bounds, bounds.discard_sectors)?;
                // Discard has reserved flags, which a device must refuse.
                let plain = ranges.into_iter().map(|(range, flags)| match flags {
                    0 => Ok(range),
                    _ => Err(UNSUPPORTED),
                });
                Ok(Operation::Discard {
                    ranges: plain.collect::<Result<_, _>>()?,
                })
            }
            VIRTIO_BLK_T_WRITE_ZEROES if bounds.segments != 0 => {
                let ranges = self.segments(mem, sectors, bounds, bounds.write_zeroes_sectors)?;
                let known = ranges.into_iter().map(|(range, flags)| match flags {
                    0 => Ok((range, false)),
                    VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP => Ok((range, true)),
                    _ => Err(UNSUPPORTED),
                });
                Ok(Operation::WriteZeroes {
                    ranges: known.collect::<Result<_, _>>()?,
                })
            }
            _ => Err(UNSUPPORTED),
        }
    }

    /// Returns the ranges of a discard or write-zeroes request with their flags.
    fn segments(
        &self,
        mem: &GuestMemory,
        sectors: u64,
        bounds: &RequestBounds,
        most_sectors: u32,
    ) -> Result<Vec<(Range<u64>, u32)>, u8> {
        let most = SEGMENT * bounds.segments as usize;
        let len = self.data_out.len();
        if len == 0 || !len.is_multiple_of(SEGMENT) || len > most {
            return Err(IO_ERROR);
        }
        let mut bytes = vec![0; len];
        self.data_out.read(mem, &mut bytes).map_err(|_| IO_ERROR)?;
        let (segments, _) = bytes.as_chunks::<SEGMENT>();
        let ranges = segments.iter().map(|segment| {
            let [s0, s1, s2, s3, s4, s5, s6, s7, n0, n1, n2, n3, flags @ ..] = *segment;
            let sector = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
            let count = u32::from_le_bytes([n0, n1, n2, n3]);
            if count > most_sectors {
                return Err(IO_ERROR);
            }
            let range = byte_range(sector, count.into(), sectors)?;
            Ok((range, u32::from_le_bytes(flags)))
        });
        ranges.collect()
    }

    /// Writes as much of `bytes` as the request has room for.
    pub(super) fn write_data(
        &self,
        mem: &GuestMemory,
        bytes: &[u8],
    ) -> Result<usize, vm_memory::GuestMemoryError> {
        let len = bytes.len().min(self.data_in.len());
        self.data_in
            .write(mem, bytes.get(..len).unwrap_or_default())?;
        Ok(len)
    }

    /// Writes the status byte. Returns the length for the used ring: the bytes written without a gap from the start of the
    /// buffers (section 2.7.8.2).
    pub(super) fn finish(&self, mem: &GuestMemory, done: Result<usize, u8>) -> u32 {
        let (written, status) = match done {
            Ok(written) => (written, OK),
            Err(status) => (0, status),
        };
        let status = self.status.write(mem, &[status]);
        let adjoins = status.is_ok() && written == self.data_in.len();
        u32::try_from(written + usize::from(adjoins)).unwrap_or(u32::MAX)
    }
}

/// Returns the byte range of `count` sectors from `sector`, if it is within the disk.
fn byte_range(sector: u64, count: u64, sectors: u64) -> Result<Range<u64>, u8> {
    match sector.checked_add(count) {
        Some(end) if end <= sectors => Ok(sector << SECTOR_SHIFT..end << SECTOR_SHIFT),
        _ => Err(IO_ERROR),
    }
}

/// Returns the status for `error`. Errors of the host are logged.
pub(super) fn status_of(error: &io::Error, disk: &str) -> u8 {
    match error.raw_os_error() {
        Some(libc::EOPNOTSUPP) => UNSUPPORTED,
        // The buffers are outside guest memory.
        None if error.kind() == io::ErrorKind::InvalidInput => {
            log::debug!("drive {disk}: {error}");
            IO_ERROR
        }
        _ => {
            log::warn!("drive {disk}: {error}");
            IO_ERROR
        }
    }
}
