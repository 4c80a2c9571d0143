//! Writes guest memory to a file, by as many threads as there are.

use super::runs::Run;
use crate::machine::memory::page::PAGE;
use crate::machine::memory::page_set::PageSet;
use crate::machine::memory::view::{Piece, View};
use devices::lock;
use std::fs::File;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a thread takes at a time: large enough for the disk, small enough that threads end together.
const PIECE: u64 = 2 << 20;

/// Which pages are written.
pub enum Selection {
    /// All but those that hold nothing.
    NotZero {
        /// Where in the file's order pages may hold something though they are not in memory, as offset and length.
        elsewhere: Vec<(u64, u64)>,
        /// Whether pages may be swapped out.
        swap: bool,
    },
    /// These, whatever they hold.
    These(PageSet),
    /// Those that differ from this file.
    DifferFrom(File),
}

/// A memory on its way into a file.
pub struct Writer {
    pieces: Vec<Piece>,
    /// Keeps the mapping of the pieces.
    _view: View,
    file: File,
    selection: Selection,
    next: AtomicUsize,
    written: Mutex<Vec<Run>>,
    failed: Mutex<Option<io::Error>>,
}

impl Writer {
    /// Writes the selected pages of `view` to `file`, which becomes as long as the memory.
    ///
    /// # Errors
    /// The file cannot be made so long.
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

    /// Writes until there is nothing more to write, or any thread failed. To be called by each thread.
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

    /// Whether each page of `piece` is to be written.
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

    /// What was written, in order.
    ///
    /// # Errors
    /// What any thread met.
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
