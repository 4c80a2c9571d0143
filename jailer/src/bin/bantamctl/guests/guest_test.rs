use super::*;

#[test]
fn only_the_id_of_one_process_is_accepted() {
    assert_eq!(parse_id("2147483647"), Some(i32::MAX.cast_unsigned()));
    for text in ["", "0", "1", "-1", "4294967295", "2147483648", "12 "] {
        assert_eq!(parse_id(text), None, "{text}");
    }
}
