//! Which pages a memory file holds: runs of pages, each with the checksum of its bytes.

use crate::machine::memory::page::PAGE;

/// Bytes of a run in the table.
const ENTRY: usize = 12;

/// Pages one after the other, in the file as in the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The first, as an index into the file.
    pub start: u32,
    /// How many; at least one.
    pub pages: u32,
    /// CRC-32 of their bytes.
    pub crc: u32,
}

impl Run {
    /// Bytes before it in the file.
    pub fn offset(&self) -> u64 {
        u64::from(self.start) * PAGE
    }

    /// Its bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.pages) * PAGE
    }

    /// The index after its last page.
    pub fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.pages)
    }
}

/// Why a table is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// An entry is cut off.
    #[error("the table of its pages is cut off")]
    CutOff,
    /// Runs overlap, are empty, out of order or beyond the memory.
    #[error("the table of its pages is no such table at entry {0}")]
    Entry(usize),
}

/// The table of `runs`, which are in order.
pub fn encode(runs: &[Run]) -> Vec<u8> {
    let entries = runs.iter();
    entries
        .flat_map(|run| [run.start, run.pages, run.crc])
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// The runs of `table`, of a memory of `pages` pages.
///
/// # Errors
/// [`TableError`].
pub fn decode(table: &[u8], pages: u64) -> Result<Vec<Run>, TableError> {
    let mut runs: Vec<Run> = Vec::with_capacity(table.len() / ENTRY);
    let (entries, rest) = table.as_chunks::<ENTRY>();
    if !rest.is_empty() {
        return Err(TableError::CutOff);
    }
    for (index, entry) in entries.iter().enumerate() {
        let mut words = entry
            .as_chunks()
            .0
            .iter()
            .map(|word| u32::from_le_bytes(*word));
        let mut next = || words.next().unwrap_or_default();
        let run = Run {
            start: next(),
            pages: next(),
            crc: next(),
        };
        let before = runs.last().map_or(0, Run::end);
        if run.pages == 0 || u64::from(run.start) < before || run.end() > pages {
            return Err(TableError::Entry(index));
        }
        runs.push(run);
    }
    Ok(runs)
}

/// `runs` with those joined that follow one another; checksums are lost.
pub fn joined(runs: &[Run]) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for run in runs {
        match all.last_mut() {
            Some((offset, len)) if *offset + *len == run.offset() => *len += run.bytes(),
            _ => all.push((run.offset(), run.bytes())),
        }
    }
    all
}

#[cfg(test)]
#[path = "runs_test.rs"]
mod runs_test;
