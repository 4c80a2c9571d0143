//! A set of pages of guest memory, identified by their index in a memory file.

use super::page::PAGE;

/// Pages in a word.
const WORD: u64 = 64;

/// A set of pages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageSet {
    words: Vec<u64>,
}

impl PageSet {
    /// Creates an empty set for a memory of `pages` pages.
    pub fn empty(pages: u64) -> Self {
        let words = usize::try_from(pages.div_ceil(WORD)).unwrap_or_default();
        Self {
            words: vec![0; words],
        }
    }

    fn word(page: u64) -> (usize, u64) {
        // A page whose word has no index is in no set.
        let index = usize::try_from(page / WORD).unwrap_or(usize::MAX);
        (index, 1 << (page % WORD))
    }

    /// Adds `page`. A page beyond the memory is ignored.
    pub fn insert(&mut self, page: u64) {
        let (index, bit) = Self::word(page);
        if let Some(word) = self.words.get_mut(index) {
            *word |= bit;
        }
    }

    /// Returns whether the set contains `page`.
    pub fn contains(&self, page: u64) -> bool {
        let (index, bit) = Self::word(page);
        self.words.get(index).is_some_and(|word| word & bit != 0)
    }

    /// Adds the pages of a bitmap whose first bit is the page `first`.
    pub fn insert_words(&mut self, first: u64, words: &[u64]) {
        if first.is_multiple_of(WORD) {
            let from = Self::word(first).0;
            let own = self.words.get_mut(from..).unwrap_or_default();
            own.iter_mut().zip(words).for_each(|(own, new)| *own |= new);
            return;
        }
        for (word, base) in words.iter().zip((first..).step_by(64)) {
            for bit in (0..WORD).filter(|bit| word & 1 << bit != 0) {
                self.insert(base + bit);
            }
        }
    }

    /// Adds the pages of `other`.
    pub fn extend(&mut self, other: &Self) {
        self.insert_words(0, &other.words);
    }

    /// Returns the number of pages.
    pub fn len(&self) -> u64 {
        self.words
            .iter()
            .map(|word| u64::from(word.count_ones()))
            .sum()
    }

    /// Returns whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Returns the number of bytes of the pages.
    pub fn bytes(&self) -> u64 {
        self.len() * PAGE
    }

    /// Returns the runs of adjacent pages, as first page and number.
    pub fn runs(&self) -> Vec<(u64, u64)> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        for (index, word) in (0_u64..).zip(&self.words) {
            let mut rest = *word;
            while rest != 0 {
                let bit = u64::from(rest.trailing_zeros());
                let page = index * WORD + bit;
                match runs.last_mut() {
                    Some((first, pages)) if *first + *pages == page => *pages += 1,
                    _ => runs.push((page, 1)),
                }
                rest &= rest - 1;
            }
        }
        runs
    }
}

#[cfg(test)]
#[path = "page_set_test.rs"]
mod page_set_test;
