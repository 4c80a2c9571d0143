//! Settings of this crate's property tests.

/// Returns a runner with a fixed seed. The variable `BANTAM_CASES` sets the number of cases.
pub fn properties() -> proptest::test_runner::TestRunner {
    let cases = std::env::var("BANTAM_CASES").map_or(150, |n| n.parse().unwrap());
    proptest::test_runner::TestRunner::new(proptest::test_runner::Config {
        cases,
        rng_seed: proptest::test_runner::RngSeed::Fixed(0x62_616e_7461_6d21),
        failure_persistence: None,
        max_shrink_iters: 1000,
        ..Default::default()
    })
}
