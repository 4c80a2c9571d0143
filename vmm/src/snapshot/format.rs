//! The format of a state file: a header, the state as JSON, and the table of the pages that the memory file holds.
//!
//! ```text
//!  0  "BANTAMSS"
//!  8  u32  version of the format        little-endian, like all numbers
//! 12  u32  CRC-32 of the state
//! 16  u64  bytes of the state
//! 24  u64  bytes of the table
//! 32  u32  CRC-32 of the table
//! 36  u32  CRC-32 of the 36 bytes before
//! 40  the state, JSON
//!  …  the table (see `runs.rs`)
//! ```
//!
//! The state comes first and has a checksum of its own, so that a restore need not read the table. The bytes are not
//! trusted: no length in them makes the program allocate more than the file has. Checksums detect accidents, not attackers,
//! so the users of the state check its values.

use super::contents::MAX_STATE_BYTES;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::FileExt as _;

/// Version that is written. Older versions can be read: see `tests/golden`.
pub const VERSION: u32 = 1;
/// Size of the header in bytes.
const HEADER: usize = 40;
const MAGIC: [u8; 8] = *b"BANTAMSS";
/// Limit of a table in bytes: the table of 1 TiB with every other page present.
const MAX_TABLE: u64 = 2 << 30;

/// Why a file is not a state.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The file has another format.
    #[error("this is not a snapshot's state")]
    Magic,
    /// The version is later than this program's.
    #[error("this is version {0} of the format, and this program knows versions up to {VERSION}")]
    Version(u32),
    /// The file is truncated.
    #[error("it is truncated: it has {present} bytes of {needed}")]
    Truncated {
        /// Bytes that the file has.
        present: u64,
        /// Bytes that the file must have.
        needed: u64,
    },
    /// A part of the file is damaged.
    #[error("its {0} is damaged: the checksum is wrong")]
    Checksum(&'static str),
    /// A part exceeds its limit.
    #[error("its {0} is too large")]
    TooLarge(&'static str),
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
}

/// Returns the text of a version. Clients expect three numbers, of which the first decides compatibility.
pub fn version_text(version: u32) -> String {
    format!("v{version}.0.0")
}

/// The header of a state file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the format.
    pub version: u32,
    state: (u64, u32),
    table: (u64, u32),
}

/// Returns the bytes of a state file.
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

/// The numbers of a header that are not parsed yet.
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
        // The version comes first, because a later version may have another header.
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
        // The length is at most that of the file.
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| FormatError::TooLarge(name))?];
        read_at(file, offset, &mut bytes)?;
        match crc32fast::hash(&bytes) == crc {
            true => Ok(bytes),
            false => Err(FormatError::Checksum(name)),
        }
    }

    /// Reads the state, which is JSON.
    ///
    /// # Errors
    /// [`FormatError`].
    pub fn state(&self, file: &File) -> Result<Vec<u8>, FormatError> {
        Self::part(file, HEADER as u64, self.state, "state")
    }

    /// Reads the page table.
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
