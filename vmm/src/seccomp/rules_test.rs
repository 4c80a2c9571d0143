use super::*;

fn rule(text: &str) -> Result<Rule, String> {
    serde_json::from_str(text).map_err(|e| e.to_string())
}

fn allows(text: &str, call: Sysno, arguments: [u64; ARGUMENTS]) -> bool {
    rule(text).unwrap().allows(call.id(), &arguments, 77)
}

#[test]
fn a_rule_without_conditions_allows_any_arguments() {
    let text = r#"{"syscall": "read"}"#;
    assert!(allows(text, Sysno::read, [9; ARGUMENTS]));
    assert!(!allows(text, Sysno::write, [9; ARGUMENTS]));
}

#[test]
fn all_conditions_must_hold() {
    let text = r#"{"syscall": "tgkill", "comment": "to oneself", "args": [
        {"index": 0, "op": "eq", "value": "own_pid"}, {"index": 2, "op": "le", "value": "0x1f"}]}"#;
    assert!(allows(text, Sysno::tgkill, [77, 1, 31, 0, 0, 0]));
    assert!(!allows(text, Sysno::tgkill, [77, 1, 32, 0, 0, 0]));
    assert!(!allows(text, Sysno::tgkill, [78, 1, 31, 0, 0, 0]));
}

#[test]
fn each_comparison_works() {
    for (op, holds) in [
        ("eq", [false, true, false]),
        ("ne", [true, false, true]),
        ("lt", [true, false, false]),
        ("le", [true, true, false]),
        ("gt", [false, false, true]),
        ("ge", [false, true, true]),
    ] {
        let text =
            format!(r#"{{"syscall": "exit", "args": [{{"index": 0, "op": "{op}", "value": 5}}]}}"#);
        let allowed = [4, 5, 6].map(|value| allows(&text, Sysno::exit, [value, 0, 0, 0, 0, 0]));
        assert_eq!(allowed, holds, "{op}");
    }
}

#[test]
fn masked_eq_compares_only_the_bits_of_the_mask() {
    let text =
        r#"{"syscall": "mmap", "args": [{"index": 2, "op": "masked_eq", "mask": 4, "value": 0}]}"#;
    assert!(allows(text, Sysno::mmap, [0, 0, 3, 0, 0, 0]));
    assert!(!allows(text, Sysno::mmap, [0, 0, 7, 0, 0, 0]));
}

#[test]
fn the_upper_half_counts_with_width_64() {
    let value = [5 | 1 << 32, 0, 0, 0, 0, 0];
    let narrow = r#"{"syscall": "exit", "args": [{"index": 0, "op": "eq", "value": 5}]}"#;
    assert!(allows(narrow, Sysno::exit, value));
    let wide =
        r#"{"syscall": "exit", "args": [{"index": 0, "op": "eq", "value": 5, "width": 64}]}"#;
    assert!(!allows(wide, Sysno::exit, value));
}

#[test]
fn invalid_conditions_are_refused_with_a_reason() {
    let condition =
        |text: &str| rule(&format!(r#"{{"syscall": "exit", "args": [{{{text}}}]}}"#)).unwrap_err();
    for (text, says) in [
        (r#""index": 6, "op": "eq", "value": 0"#, "0 to 5"),
        (
            r#""index": 0, "op": "is", "value": 0"#,
            "unknown variant `is`",
        ),
        (r#""index": 0, "op": "eq", "value": "ten""#, "own_pid"),
        (r#""index": 0, "op": "eq", "value": -1"#, "own_pid"),
        (r#""index": 0, "op": "masked_eq", "value": 0"#, "`mask`"),
        (
            r#""index": 0, "op": "eq", "mask": 1, "value": 0"#,
            "masked_eq",
        ),
        (r#""index": 0, "op": "eq", "value": "0x100000000""#, "width"),
        (
            r#""index": 0, "op": "eq", "value": 0, "width": 16"#,
            "use 32",
        ),
        (
            r#""index": 0, "op": "eq", "valu": 0"#,
            "unknown field `valu`",
        ),
    ] {
        let message = condition(text);
        assert!(message.contains(says), "{text}: {message}");
    }
    let message = rule(r#"{"syscall": "opne"}"#).unwrap_err();
    assert!(message.contains("`opne`"), "{message}");
    let message = rule(r#"{"syscall": "open", "because": "x"}"#).unwrap_err();
    assert!(message.contains("`because`"), "{message}");
}
