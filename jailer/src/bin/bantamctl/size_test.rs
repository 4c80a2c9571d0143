use super::*;

#[test]
fn a_size_is_in_gib_or_has_a_unit() {
    for (text, bytes) in [
        ("20", 20 << 30),
        ("512M", 512 << 20),
        ("1g", 1 << 30),
        ("2TiB", 2 << 40),
        ("64T", 64 << 40),
    ] {
        assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
    }
    for text in [
        "",
        "0",
        "-1",
        "1.5",
        "M",
        "1K",
        "65T",
        "99999999999999999999",
        "1 G",
    ] {
        assert!(text.parse::<Size>().is_err(), "{text}");
    }
}

#[test]
fn bytes_are_shown_in_a_fitting_unit() {
    assert_eq!(gib(0), "0.00 MiB");
    assert_eq!(gib(1 << 29), "512.00 MiB");
    assert_eq!(gib(20 << 30), "20.00 GiB");
    assert_eq!(gib((3 << 40) + (1 << 39)), "3.50 TiB");
    assert_eq!(gib(u64::MAX), "16777215.99 TiB");
}
