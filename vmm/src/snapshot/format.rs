//! The file of a snapshot's state: a header, the state as JSON, and the table of the pages that the memory file holds.
//!
//! ```text
//!  0  "BANTAMSS"
//!  8  u32  version of the format        little-endian, as all numbers
//! 12  u32  CRC-32 of the state
//! 16  u64  bytes of the state
//! 24  u64  bytes of the table
//! 32  u32  CRC-32 of the table
//! 36  u32  CRC-32 of the 36 bytes before
//! 40  the state, JSON
//!  …  the table (see `runs.rs`)
//! ```
//!
//! The state comes first and has a checksum of its own, so that a restore reads no table that it does not need. All
//! bytes may be hostile: nothing is allocated by what they say, and checksums find accidents, not attackers; what the
//! state says is checked by those who use it.

use super::contents::MAX_STATE_BYTES;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;

/// The version that is written. One that is read may be older: see `tests/golden`.
pub const VERSION: u32 = 1;
/// Bytes of the header.
const HEADER: usize = 40;
const MAGIC: [u8; 8] = *b"BANTAMSS";
/// Most bytes of a table: that of a TiB of which every other page is there.
const MAX_TABLE: u64 = 2 << 30;

/// Why the bytes are no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// Something else.
    #[error("this is no snapshot's state")]
    Magic,
    /// A version that came later.
    #[error("this is version {0} of the format, and this program knows those up to {VERSION}")]
    Version(u32),
    /// Part of it is missing.
    #[error("it is cut off: {present} bytes are there of {needed}")]
    Truncated {
        /// Bytes that are there.
        present: u64,
        /// Bytes it says there are.
        needed: u64,
    },
    /// A part has other bytes than were written.
    #[error("its {0} is damaged: the checksum is wrong")]
    Checksum(&'static str),
    /// A part is larger than any can be.
    #[error("its {0} is larger than can be")]
    TooLarge(&'static str),
    /// The host failed to read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

/// A version as it is printed: clients look for three numbers, of which the first tells whether they fit.
pub fn version_text(version: u32) -> String {
    format!("v{version}.0.0")
}

/// What the header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the format.
    pub version: u32,
    state: (u64, u32),
    table: (u64, u32),
}

/// All of a file.
pub fn encode(state: &[u8], table: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + state.len() + table.len());
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(crc32fast::hash(state).to_le_bytes());
    bytes.extend((state.len() as u64).to_le_bytes());
    bytes.extend((table.len() as u64).to_le_bytes());
    bytes.extend(crc32fast::hash(table).to_le_bytes());
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(state);
    bytes.extend(table);
    bytes
}

/// The numbers of a header, in order.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        let (now, rest) = self.0.split_first_chunk().unwrap_or((&[0; N], &[]));
        self.0 = rest;
        *now
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.next())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.next())
    }
}

fn read_at(file: &File, offset: u64, bytes: &mut [u8]) -> Result<(), FormatError> {
    file.read_exact_at(bytes, offset).map_err(FormatError::Read)
}

impl Header {
    /// Reads and checks the header of `file`.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn read(file: &File) -> Result<Self, FormatError> {
        let mut bytes = Vec::with_capacity(HEADER);
        file.take(HEADER as u64)
            .read_to_end(&mut bytes)
            .map_err(FormatError::Read)?;
        if !bytes.starts_with(&MAGIC) {
            return Err(FormatError::Magic);
        }
        let present = file.metadata().map_err(FormatError::Read)?.len();
        let Some((numbers, _)) = bytes
            .split_last_chunk::<4>()
            .filter(|_| bytes.len() == HEADER)
        else {
            let needed = HEADER as u64;
            return Err(FormatError::Truncated { present, needed });
        };
        let mut all = Numbers(bytes.get(MAGIC.len()..).unwrap_or_default());
        let version = all.u32();
        // First: a later version may have another header.
        if version == 0 || version > VERSION {
            return Err(FormatError::Version(version));
        }
        let state_crc = all.u32();
        let (state_len, table_len) = (all.u64(), all.u64());
        let table_crc = all.u32();
        if all.u32() != crc32fast::hash(numbers) {
            return Err(FormatError::Checksum("header"));
        }
        if state_len > MAX_STATE_BYTES {
            return Err(FormatError::TooLarge("state"));
        }
        if table_len > MAX_TABLE {
            return Err(FormatError::TooLarge("table"));
        }
        let needed = HEADER as u64 + state_len + table_len;
        if present < needed {
            return Err(FormatError::Truncated { present, needed });
        }
        Ok(Self {
            version,
            state: (state_len, state_crc),
            table: (table_len, table_crc),
        })
    }

    fn part(
        file: &File,
        offset: u64,
        (len, crc): (u64, u32),
        name: &'static str,
    ) -> Result<Vec<u8>, FormatError> {
        // It was compared with the length of the file.
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| FormatError::TooLarge(name))?];
        read_at(file, offset, &mut bytes)?;
        match crc32fast::hash(&bytes) == crc {
            true => Ok(bytes),
            false => Err(FormatError::Checksum(name)),
        }
    }

    /// The state, as JSON.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn state(&self, file: &File) -> Result<Vec<u8>, FormatError> {
        Self::part(file, HEADER as u64, self.state, "state")
    }

    /// The table.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn table(&self, file: &File) -> Result<Vec<u8>, FormatError> {
        Self::part(file, HEADER as u64 + self.state.0, self.table, "table")
    }
}

#[cfg(test)]
#[path = "format_test.rs"]
mod format_test;
