use super::*;

#[test]
fn a_line_shows_amount_rate_and_remaining_time() {
    let text = line("copy a", 1 << 30, 4 << 30, Duration::from_secs(2));
    assert_eq!(
        text,
        "copy a [#######.......................]  25 %, 1024 MiB, 512 MiB/s, 6 s left"
    );
    let text = line("import a", 5 << 20, 0, Duration::from_secs(1));
    assert_eq!(text, "import a 5 MiB, 5 MiB/s");
    // Numbers that an odd file system may report do no harm.
    line("x", u64::MAX, 1, Duration::ZERO);
    line("x", u64::MAX, u64::MAX, Duration::MAX);
}
