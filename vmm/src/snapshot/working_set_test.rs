use super::*;
use proptest::prelude::*;

const ID: &str = "0123456789abcdef";

fn run(start: u32, pages: u32, written: bool) -> Touched {
    Touched {
        start,
        pages,
        written,
    }
}

#[test]
fn a_recording_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = path_for(&dir.path().join("memory"));
    assert_eq!(path.file_name().unwrap(), "memory.workingset");
    assert!(read(&path, ID, 100).unwrap().is_none());
    let runs = [run(9, 1, true), run(0, 100, false), run(3, 2, true)];
    std::fs::write(&path, encode(ID, &runs)).unwrap();
    assert_eq!(read(&path, ID, 100).unwrap().unwrap(), runs);
    let other = read(&path, "fedcba9876543210", 100).unwrap_err();
    assert!(matches!(other, WorkingSetError::Other), "{other}");
    let smaller = read(&path, ID, 99).unwrap_err();
    assert!(matches!(smaller, WorkingSetError::Damaged), "{smaller}");
    let other = read(Path::new("/dev/zero"), ID, 100).unwrap_err();
    assert!(matches!(other, WorkingSetError::Magic), "{other}");
}

#[test]
fn a_recording_with_too_many_pages_is_refused() {
    let most = [run(0, 10, false), run(0, 10, true)];
    assert!(decode(&encode(ID, &most), ID, 10).is_ok());
    let more = [run(0, 10, false), run(0, 10, true), run(5, 1, false)];
    for bad in [&more[..], &[run(3, 0, false)], &[run(u32::MAX, 2, true)]] {
        assert!(decode(&encode(ID, bad), ID, 10).is_err(), "{bad:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_parsed_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), at in 0_usize..60, honest: bool) {
        if honest {
            bytes = encode(ID, &[run(1, 2, true), run(7, 1, false)]);
            let at = at % bytes.len();
            bytes[at] ^= 4;
        }
        prop_assert!(decode(&bytes, ID, 100).is_err());
    }
}
