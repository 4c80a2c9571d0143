use super::*;

const ALONE: FlockArg = FlockArg::LockExclusiveNonblock;

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
fn no_number_is_claimed_twice() {
    let directory = tempfile::tempdir().unwrap();
    let directory = Dir::open(directory.path()).unwrap();
    let first = lock_in(&directory, 7, ALONE).unwrap();
    assert!(first.is_some());
    assert!(lock_in(&directory, 7, ALONE).unwrap().is_none());
    assert!(lock_in(&directory, 8, ALONE).unwrap().is_some());
    drop(first);
    assert!(lock_in(&directory, 7, ALONE).unwrap().is_some());
}

#[test]
fn every_uid_is_tried_once_and_each_guest_begins_at_its_own() {
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
fn a_user_with_processes_is_given_to_no_guest() {
    use std::os::unix::process::CommandExt as _;
    let range = Range::parse(Some("61877-61878")).unwrap();
    let mut sleeping = std::process::Command::new("sleep");
    let mut sleeping = sleeping.arg("60").uid(61877).spawn().unwrap();
    assert!(living_users().unwrap().contains(&61877));
    assert!(!living_users().unwrap().contains(&61878));
    assert_eq!(
        [61877, 61878].map(|uid| has_processes(uid).unwrap()),
        [true, false]
    );
    let first = range.allot("a").unwrap().0;
    let second = range.allot("b").unwrap().0;
    let free = range.first_free(2, |_| false).unwrap();
    let none = range.first_free(1, |uid| uid == 61878).unwrap();
    sleeping.kill().unwrap();
    // Dead, but not waited for yet.
    while living_users().unwrap().contains(&61877) {}
    assert!(has_processes(61877).unwrap());
    let dead = range.first_free(2, |_| false).unwrap();
    sleeping.wait().unwrap();
    assert!(!has_processes(61877).unwrap());
    assert_eq!(dead, [61877, 61878]);
    assert_eq!((first, second), (owner(61878), owner(61878)));
    assert_eq!((free, none), (vec![61878], vec![]));
    assert_eq!(range.first_free(2, |_| false).unwrap(), [61877, 61878]);
}

#[test]
fn guests_share_a_user_that_the_operator_names() {
    let first = share(61_880).unwrap();
    let second = share(61_880).unwrap();
    assert!(
        lock_in(&directory().unwrap(), 61_880, ALONE)
            .unwrap()
            .is_none()
    );
    drop((first, second));
    let alone = lock_in(&directory().unwrap(), 61_880, ALONE).unwrap();
    assert!(alone.is_some() && share(61_880).is_err());
}

#[test]
fn a_zombie_has_no_users() {
    let users = |state: &str, threads: u32| -> Vec<u32> {
        let status =
            format!("Name:\tx\nState:\t{state} (x)\nUid:\t0\t77\t0\t0\nThreads:\t{threads}\n");
        users_of(&status).collect()
    };
    assert_eq!(users("S", 1), [0, 77, 0, 0]);
    assert_eq!(users("Z", 2), [0, 77, 0, 0]);
    assert!(users("Z", 1).is_empty());
    assert_eq!(users_of("").count(), 0);
}
