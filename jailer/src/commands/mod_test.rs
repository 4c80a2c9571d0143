use super::*;

fn help(words: &[&str]) -> String {
    match parse(words).unwrap() {
        Parsed::Print(text) => text,
        Parsed::Run(command) => panic!("{command:?}"),
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    for pool in [
        "define",
        "undefine",
        "start",
        "stop",
        "list",
        "show",
        "autostart",
    ] {
        let text = help(&["pool", pool, "--help"]);
        assert!(text.contains(&format!("jailer pool {pool} ")), "{text}");
    }
    for volume in ["create", "clone", "resize", "list", "delete", "import"] {
        let text = help(&["volume", volume, "--help"]);
        assert!(text.contains(&format!("jailer volume {volume} ")), "{text}");
    }
    for group in ["pool", "volume"] {
        assert!(help(&[group, "--help"]).contains("Examples:"));
    }
}

#[test]
fn an_unknown_word_lists_the_commands() {
    for word in ["pol", "", "pool/x"] {
        let text = parse(&[word]).unwrap_err();
        assert!(text.contains("there is no command"), "{text}");
        assert!(text.contains("\n  pool "), "{text}");
        assert!(text.contains("\n  volume "), "{text}");
    }
}

#[test]
fn a_wrong_argument_names_the_help() {
    let text = parse(&["pool", "start", "a", "b"]).unwrap_err();
    assert!(text.contains("jailer pool --help"), "{text}");
}
