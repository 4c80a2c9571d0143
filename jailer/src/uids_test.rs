use super::*;

#[test]
fn a_range_is_two_numbers_in_order() {
    let numbers: Vec<_> = Range::parse(Some("5-7")).unwrap().numbers().collect();
    assert_eq!(numbers, [5, 6, 7]);
    assert_eq!(Range::parse(None), Ok(DEFAULT));
    for wrong in ["", "5", "7-5", "0-5", "5-4294967295", "a-b", "5-6-7"] {
        assert!(Range::parse(Some(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn no_number_is_given_twice_while_it_is_held() {
    let directory = tempfile::tempdir().unwrap();
    let directory = Dir::open(directory.path()).unwrap();
    let first = claim_in(&directory, 7).unwrap();
    assert!(first.is_some());
    assert!(claim_in(&directory, 7).unwrap().is_none());
    assert!(claim_in(&directory, 8).unwrap().is_some());
    drop(first);
    assert!(claim_in(&directory, 7).unwrap().is_some());
}

#[test]
fn every_number_is_tried_once_and_each_guest_begins_at_its_own() {
    let range = Range::parse(Some("100-199")).unwrap();
    let mut first = std::collections::BTreeSet::new();
    for id in ["a", "b", "web1", "web2"] {
        let mut numbers: Vec<_> = range.numbers_for(id).collect();
        assert_eq!(numbers, range.numbers_for(id).collect::<Vec<_>>());
        first.insert(numbers[0]);
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(100..=199), "{id}");
    }
    assert!(first.len() > 1);
    let one = Range::parse(Some("7-7")).unwrap();
    assert_eq!(one.numbers_for("a").collect::<Vec<_>>(), [7]);
}
