use super::*;
use proptest::prelude::*;

fn run(start: u32, pages: u32) -> Run {
    Run {
        start,
        pages,
        crc: start ^ pages,
    }
}

#[test]
fn a_table_is_read_back() {
    let runs = [run(0, 1), run(1, 3), run(10, 2)];
    assert_eq!(decode(&encode(&runs), 12), Ok(runs.to_vec()));
    assert_eq!(joined(&runs), [(0, 4 * PAGE), (10 * PAGE, 2 * PAGE)]);
    assert_eq!(decode(&[], 0), Ok(Vec::new()));
}

#[test]
fn an_invalid_table_is_refused() {
    for (runs, at) in [
        (vec![run(0, 0)], 0),
        (vec![run(0, 2), run(1, 1)], 1),
        (vec![run(5, 1), run(1, 1)], 1),
        (vec![run(11, 2)], 0),
        (vec![run(u32::MAX, u32::MAX)], 0),
    ] {
        assert_eq!(
            decode(&encode(&runs), 12),
            Err(TableError::Entry(at)),
            "{runs:?}"
        );
    }
    assert_eq!(decode(&[0; 13], 12), Err(TableError::CutOff));
}

proptest! {
    #[test]
    fn parsed_runs_are_in_order_and_within_the_memory(
        words in proptest::collection::vec(0_u32..40, 0..30), pages in 0_u64..60
    ) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        if let Ok(runs) = decode(&bytes, pages) {
            let mut end = 0;
            for run in runs {
                prop_assert!(u64::from(run.start) >= end && run.end() <= pages);
                end = run.end();
            }
        }
    }
}

#[test]
fn the_range_of_a_byte_is_found() {
    let runs = [(4096, 8192), (16384, 4096)];
    for (at, expected) in [
        (0, None),
        (4095, None),
        (4096, Some(runs[0])),
        (12287, Some(runs[0])),
        (12288, None),
        (16384, Some(runs[1])),
        (20480, None),
    ] {
        assert_eq!(
            crate::machine::memory::ranges::holding(&runs, at),
            expected,
            "{at}"
        );
    }
    assert_eq!(crate::machine::memory::ranges::holding(&[], 0), None);
}
