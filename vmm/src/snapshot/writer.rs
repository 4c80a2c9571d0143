//! Writes guest memory to a file on several threads.

use super::runs::Run;
use crate::machine::memory::page::PAGE;
use crate::machine::memory::page_set::PageSet;
use crate::machine::memory::view::{Piece, View};
use devices::lock;
use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a thread writes at a time: large enough for the disk, small enough that all threads end together.
const PIECE: u64 = 2 << 20;

/// The pages to write.
pub enum Selection {
    /// Pages that are not zero.
    NotZero {
        /// Ranges of the memory file, as offset and length, that may hold data without being in memory.
        elsewhere: Vec<(u64, u64)>,
        /// Whether pages may be swapped out.
        swap: bool,
    },
    /// These pages, even if they are zero.
    These(PageSet),
    /// Pages that differ from this file.
    DifferFrom(File),
}

/// A memory that is being written to a file.
pub struct Writer {
    pieces: Vec<Piece>,
    /// Keeps the pieces mapped.
    _view: View,
    file: File,
    selection: Selection,
    next: AtomicUsize,
    written: Mutex<Vec<Run>>,
    failed: Mutex<Option<io::Error>>,
}

impl Writer {
    /// Creates a writer of the selected pages of `view`, and sets the length of `file` to that of the memory.
    ///
    /// # Errors
    /// The length cannot be set.
    pub fn new(view: &View, file: &File, selection: Selection) -> io::Result<Self> {
        file.set_len(view.bytes())?;
        Ok(Self {
            pieces: view.pieces(PIECE),
            _view: view.clone(),
            file: file.try_clone()?,
            selection,
            next: AtomicUsize::new(0),
            written: Mutex::default(),
            failed: Mutex::default(),
        })
    }

    /// Writes pieces until all are written or a thread failed. Each thread calls it.
    pub fn work(&self) {
        let mut buffer = Vec::new();
        while lock(&self.failed).is_none() {
            let next = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(piece) = self.pieces.get(next) else {
                return;
            };
            if let Err(e) = self.write(piece, &mut buffer) {
                lock(&self.failed).get_or_insert(e);
            }
        }
    }

    fn write(&self, piece: &Piece, buffer: &mut Vec<u8>) -> io::Result<()> {
        let mut runs = Vec::new();
        let mut start = None;
        let pages = piece.len / PAGE;
        let chosen = self.chosen(piece, buffer)?;
        for page in 0..=pages {
            let selected = usize::try_from(page).ok().and_then(|page| chosen.get(page));
            match (selected.copied().unwrap_or(false), start) {
                (true, None) => start = Some(page),
                (false, Some(first)) => {
                    let run = piece.cut(first * PAGE, (page - first) * PAGE);
                    runs.extend(run);
                    start = None;
                }
                _ => {}
            }
        }
        for run in runs {
            run.write_to(&self.file)?;
            let index = |bytes: u64| u32::try_from(bytes / PAGE).map_err(io::Error::other);
            let run = Run {
                start: index(run.offset)?,
                pages: index(run.len)?,
                crc: run.crc(),
            };
            lock(&self.written).push(run);
        }
        Ok(())
    }

    /// Returns for each page of `piece` whether it is selected.
    fn chosen(&self, piece: &Piece, buffer: &mut Vec<u8>) -> io::Result<Vec<bool>> {
        let first = piece.offset / PAGE;
        match &self.selection {
            Selection::NotZero { elsewhere, swap } => {
                let end = piece.offset + piece.len;
                let overlaps = |(at, len): &(u64, u64)| *at < end && piece.offset < at + len;
                let resident = match *swap || elsewhere.iter().any(overlaps) {
                    true => None,
                    false => Some(piece.resident()?),
                };
                let pages = (0..).zip(piece.pages());
                let chosen = pages.map(|(index, page)| {
                    let there = resident.as_ref().and_then(|all: &Vec<bool>| all.get(index));
                    *there.unwrap_or(&true) && !page.is_zero()
                });
                Ok(chosen.collect())
            }
            Selection::These(pages) => {
                let all = first..first + piece.len / PAGE;
                Ok(all.map(|page| pages.contains(page)).collect())
            }
            Selection::DifferFrom(file) => {
                let same = |page: Piece| page.equals(file, buffer).map(|same| !same);
                piece.pages().map(same).collect()
            }
        }
    }

    /// Returns the written runs in order.
    ///
    /// # Errors
    /// The first error of a thread.
    pub fn finish(&self) -> io::Result<Vec<Run>> {
        if let Some(e) = lock(&self.failed).take() {
            return Err(e);
        }
        let mut runs = std::mem::take(&mut *lock(&self.written));
        runs.sort_unstable();
        Ok(runs)
    }
}

#[cfg(test)]
#[path = "writer_test.rs"]
mod writer_test;
