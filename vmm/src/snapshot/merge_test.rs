use super::*;
use proptest::prelude::*;

#[test]
fn covered_parts_are_removed() {
    let covered = [(10, 5), (20, 5)];
    for (range, expected) in [
        ((0, 5), vec![(0, 5)]),
        ((0, 12), vec![(0, 10)]),
        ((10, 5), vec![]),
        ((11, 2), vec![]),
        ((12, 20), vec![(15, 5), (25, 7)]),
        ((5, 30), vec![(5, 5), (15, 5), (25, 10)]),
        ((25, 1), vec![(25, 1)]),
    ] {
        assert_eq!(subtract(range, &covered), expected, "{range:?}");
    }
}

fn ranges() -> impl Strategy<Value = Vec<(u64, u64)>> {
    // Ranges in order that do not touch.
    prop::collection::vec((1_u64..6, 1_u64..6), 0..12).prop_map(|steps| {
        let mut at = 0;
        let step = |(gap, len)| {
            let range = (at + gap, len);
            at += gap + len;
            range
        };
        steps.into_iter().map(step).collect()
    })
}

proptest! {
    #[test]
    fn a_union_contains_exactly_the_pages_of_both(one in ranges(), other in ranges()) {
        let has = |all: &[(u64, u64)], at: u64| all.iter().any(|(o, l)| (*o..o + l).contains(&at));
        let both = union(one.clone(), other.clone());
        for at in 0..150 {
            prop_assert_eq!(has(&both, at), has(&one, at) || has(&other, at));
        }
        prop_assert!(both.windows(2).all(|pair| pair[0].0 + pair[0].1 < pair[1].0));
        for range in other {
            for (offset, len) in subtract(range, &one) {
                prop_assert!((offset..offset + len).all(|at| !has(&one, at)));
            }
        }
    }
}
