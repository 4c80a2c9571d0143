//! The table of the pages in a memory file: runs of pages with their checksums.

use crate::machine::memory::page::PAGE;

/// Size of an entry in bytes.
const ENTRY: usize = 12;

/// A run of adjacent pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// Index of the first page in the memory file.
    pub start: u32,
    /// Number of pages, at least one.
    pub pages: u32,
    /// CRC-32 of the pages.
    pub crc: u32,
}

impl Run {
    /// Returns the run's offset in the memory file.
    pub fn offset(&self) -> u64 {
        u64::from(self.start) * PAGE
    }

    /// Returns the run's length in bytes.
    pub fn bytes(&self) -> u64 {
        u64::from(self.pages) * PAGE
    }

    /// Returns the index after the last page.
    pub fn end(&self) -> u64 {
        u64::from(self.start) + u64::from(self.pages)
    }
}

/// Why a table is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The last entry is truncated.
    #[error("the page table is truncated")]
    CutOff,
    /// Runs overlap, are empty, out of order, or beyond the memory.
    #[error("page table entry {0} is invalid (empty, out of order, or beyond the end of memory)")]
    Entry(usize),
}

/// Returns the table of `runs`, which are in order.
pub fn encode(runs: &[Run]) -> Vec<u8> {
    let entries = runs.iter();
    entries
        .flat_map(|run| [run.start, run.pages, run.crc])
        .flat_map(u32::to_le_bytes)
        .collect()
}

/// Parses the table of a memory of `pages` pages.
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

/// Returns the ranges of `runs`, as offset and length, with adjacent runs joined.
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
