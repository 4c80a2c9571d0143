use super::*;

fn parse_words(words: &[&str]) -> Result<Action, String> {
    parse(
        std::iter::once("bantam")
            .chain(words.iter().copied())
            .map(OsString::from),
    )
}

fn options(words: &[&str]) -> Options {
    match parse_words(words).unwrap() {
        Action::Run(options) => options,
        Action::Print(text) => panic!("{text}"),
    }
}

#[test]
fn a_config_file_is_enough() {
    let options = options(&["--config-file", "vm.json"]);
    assert_eq!(options.config_file, PathBuf::from("vm.json"));
    assert!(!options.no_api);
    assert_eq!(options.level, LevelFilter::Warn);
}

#[test]
fn the_jailer_s_and_the_clients_arguments_are_taken() {
    let options = options(&[
        "--id",
        "vm-1",
        "--start-time-us",
        "5",
        "--start-time-cpu-us",
        "1",
        "--parent-cpu-time-us",
        "2",
        "--config-file",
        "vm.json",
        "--no-api",
        "--boot-timer",
        "--level",
        "Debug",
    ]);
    assert!(options.no_api);
    assert_eq!(options.start_time_us, Some(5));
    assert!(options.boot_timer);
    assert_eq!(options.level, LevelFilter::Debug);
}

#[test]
fn what_is_wrong_is_told() {
    for (words, part) in [
        (&[][..], "--config-file"),
        (&["--config-file", "a", "--api-sock", "s"], "serves no API"),
        (&["--config-file"], "config-file"),
        (&["--nonsense"], "--nonsense"),
        (&["--config-file", "a", "--id", "a/b"], "--id a/b"),
        (&["--config-file", "a", "--level", "loud"], "--level loud"),
        (
            &["--config-file", "a", "--no-api", "--api-sock", "s"],
            "exclude",
        ),
    ] {
        let message = parse_words(words).unwrap_err();
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn help_teaches_and_the_version_is_one_line() {
    let Action::Print(help) = parse_words(&["--help"]).unwrap() else {
        panic!("no help");
    };
    for part in ["kernel_image_path", "Ctrl-A x", "160", "0xf4"] {
        assert!(help.contains(part), "`{part}` is not in: {help}");
    }
    let Action::Print(version) = parse_words(&["--version"]).unwrap() else {
        panic!("no version");
    };
    assert_eq!(version.lines().count(), 1);
}
