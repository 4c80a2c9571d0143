use super::*;

#[test]
fn a_line_tells_how_much_how_fast_and_how_long_still() {
    let text = line("copy a", 1 << 30, 4 << 30, Duration::from_secs(2));
    assert_eq!(
        text,
        "copy a [#######.......................]  25 %, 1024 MiB, 512 MiB/s, 6 s left"
    );
    let text = line("import a", 5 << 20, 0, Duration::from_secs(1));
    assert_eq!(text, "import a 5 MiB, 5 MiB/s");
    // What an odd file system may tell breaks nothing.
    line("x", u64::MAX, 1, Duration::ZERO);
    line("x", u64::MAX, u64::MAX, Duration::MAX);
}
