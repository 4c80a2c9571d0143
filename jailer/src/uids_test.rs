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

#[test]
fn a_user_with_processes_is_given_to_nobody() {
    use std::os::unix::process::CommandExt as _;
    let range = Range::parse(Some("61877-61878")).unwrap();
    let mut sleeping = std::process::Command::new("sleep");
    let mut sleeping = sleeping.arg("60").uid(61877).spawn().unwrap();
    assert!(privileges::has_processes(owner(61877).uid).unwrap());
    assert!(!privileges::has_processes(owner(61878).uid).unwrap());
    let first = range.allot("a").unwrap().0;
    let second = range.allot("b").unwrap().0;
    sleeping.kill().unwrap();
    // Dead, and not waited for.
    while is_in_use(61877).unwrap() {}
    assert!(privileges::has_processes(owner(61877).uid).unwrap());
    sleeping.wait().unwrap();
    assert_eq!((first, second), (owner(61878), owner(61878)));
    assert!(!privileges::has_processes(owner(61877).uid).unwrap());
}

#[test]
fn what_an_operator_names_is_shared_with_whom_he_gives_it_to() {
    let first = share(61_880).unwrap();
    let second = share(61_880).unwrap();
    assert!(claim(61_880).unwrap().is_none());
    drop((first, second));
    let alone = claim(61_880).unwrap();
    assert!(alone.is_some() && share(61_880).is_err());
}

#[test]
fn the_dead_use_nothing() {
    let status = |state: &str, threads: u32, uid: u32| {
        format!("Name:\tx\nState:\t{state} (x)\nUid:\t0\t{uid}\t0\t0\nThreads:\t{threads}\n")
    };
    assert!(is_alive_as(&status("S", 1, 77), 77));
    assert!(is_alive_as(&status("Z", 2, 77), 77));
    assert!(!is_alive_as(&status("Z", 1, 77), 77));
    assert!(!is_alive_as(&status("S", 1, 7), 77) && !is_alive_as("", 77));
}
