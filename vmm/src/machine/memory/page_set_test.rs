use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

#[test]
fn pages_beyond_the_memory_are_ignored() {
    let mut set = PageSet::empty(65);
    set.insert(64);
    set.insert(1 << 40);
    set.insert(u64::MAX);
    assert_eq!(set.runs(), [(64, 1)]);
    assert!(!set.contains(u64::MAX));
    assert!(PageSet::empty(0).is_empty());
}

proptest! {
    #[test]
    fn a_page_set_behaves_as_a_set(pages in proptest::collection::btree_set(0_u64..300, 0..100)) {
        let mut set = PageSet::empty(300);
        pages.iter().for_each(|page| set.insert(*page));
        prop_assert_eq!(set.len(), pages.len() as u64);
        let runs = set.runs();
        let back: BTreeSet<u64> = runs.iter().flat_map(|(first, n)| *first..first + n).collect();
        prop_assert_eq!(&back, &pages);
        let apart = runs.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0);
        prop_assert!(apart, "adjacent runs must be joined");
    }

    #[test]
    fn words_are_added_at_their_pages(
        first in 0_u64..200, words in proptest::collection::vec(any::<u64>(), 0..4)
    ) {
        let mut set = PageSet::empty(600);
        set.insert_words(first, &words);
        for page in 0_u64..600 {
            let bit = page.checked_sub(first).and_then(|n| Some((words.get(usize::try_from(n).ok()? / 64)?, n % 64)));
            let expected = bit.is_some_and(|(word, bit)| word & 1 << bit != 0);
            prop_assert_eq!(set.contains(page), expected);
        }
    }
}
