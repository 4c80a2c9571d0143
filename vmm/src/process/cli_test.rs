use super::*;
use resources::Level;
use std::path::Path;

fn parse_words(words: &[&str]) -> Result<Action, String> {
    parse(
        std::iter::once("bantam")
            .chain(words.iter().copied())
            .map(OsString::from),
    )
}

fn options(words: &[&str]) -> Options {
    match parse_words(words).unwrap() {
        Action::Run(options) => *options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn without_arguments_the_api_is_served_at_the_default_path() {
    let options = options(&[]);
    assert_eq!(
        options.api_sock.as_deref(),
        Some(Path::new("/run/firecracker.socket"))
    );
    assert_eq!(options.config_file, None);
    assert_eq!(options.seccomp, SeccompMode::Default);
    assert_eq!((options.max_body, options.metadata_limit), (51_200, 51_200));
}

#[test]
fn all_arguments_of_jailer_and_clients_are_accepted() {
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
        "--metadata",
        "m.json",
        "--no-seccomp",
        "--log-path",
        "log",
        "--level",
        "Debug",
        "--module",
        "devices",
        "--show-level",
        "--show-log-origin",
        "--metrics-path",
        "metrics",
        "--http-api-max-payload-size",
        "1000",
        "--mmds-size-limit",
        "2000",
        "--enable-pci",
    ]);
    assert_eq!(options.api_sock, None);
    assert_eq!(options.start_time_us, Some(5));
    assert!(options.boot_timer && options.enable_pci);
    assert_eq!(options.metadata.as_deref(), Some(Path::new("m.json")));
    assert_eq!(options.seccomp, SeccompMode::Off);
    assert_eq!(options.logger.level, Some(Level::Debug));
    assert_eq!(options.logger.module.as_deref(), Some("devices"));
    assert_eq!(options.logger.show_log_origin, Some(true));
    assert_eq!((options.max_body, options.metadata_limit), (1000, 2000));
}

#[test]
fn errors_name_the_wrong_argument() {
    for (words, part) in [
        (&["--no-api"][..], "--config-file"),
        (&["--check"], "--config-file"),
        (&["--config-file"], "config-file"),
        (&["--nonsense"], "--nonsense"),
        (&["--config-file", "a", "--id", "a/b"], "--id a/b"),
        (&["--config-file", "a", "--level", "loud"], "--level"),
        (&["--config-file", "a", "--restore", "b"], "exclude"),
        (&["--prefetch"], "--restore"),
        (&["snapshot", "guess"], "guess"),
        (&["snapshot", "info"], "state"),
        (&["snapshot", "merge", "a", "b"], "--output"),
        (
            &["snapshot", "merge", "a", "--output", "b", "--to-state", "c"],
            "--output",
        ),
        (&["--seccomp-filter", "f", "--no-seccomp"], "exclude"),
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
fn help_has_examples_and_version_begins_with_firecracker_s() {
    for word in ["--help", "-h"] {
        let Action::Print(help) = parse_words(&[word]).unwrap() else {
            panic!("no help");
        };
        for part in ["kernel_image_path", "Ctrl-A x", "160", "0xf4", "curl"] {
            assert!(help.contains(part), "`{part}` is not in: {help}");
        }
    }
    let Action::Print(version) = parse_words(&["--version"]).unwrap() else {
        panic!("no version");
    };
    let lines: Vec<_> = version.lines().collect();
    assert_eq!(lines[0], "Firecracker v1.17.0");
    assert!(lines[1].starts_with("Bantam v"));
}

#[test]
fn a_snapshot_can_be_restored_without_an_api() {
    let options = options(&["--no-api", "--restore", "web1"]);
    assert_eq!(options.restore.as_deref(), Some(Path::new("web1")));
    assert_eq!(options.api_sock, None);
}

#[test]
fn the_first_word_selects_the_snapshot_action() {
    for words in [
        &["snapshot", "info", "web1", "--json"][..],
        &["snapshot", "verify", "web1.state", "web1.memory"],
        &["snapshot", "merge", "web1", "--output", "web2"],
    ] {
        let action = parse_words(words).unwrap();
        assert!(matches!(action, Action::Snapshot(_)), "{action:?}");
    }
    for words in [
        &["snapshot"][..],
        &["snapshot", "--help"],
        &["snapshot", "merge", "-h"],
    ] {
        let Action::Print(help) = parse_words(words).unwrap() else {
            panic!("no help");
        };
        assert!(help.contains("bantam snapshot merge"), "{help}");
    }
    let version = parse_words(&["--snapshot-version"]).unwrap();
    assert!(matches!(version, Action::PrintSnapshotVersion));
    let describe = parse_words(&["--describe-snapshot", "web1.state"]).unwrap();
    assert!(matches!(describe, Action::DescribeSnapshot(file) if file == Path::new("web1.state")));
}

#[test]
fn fork_options_name_images_taps_and_lifeline() {
    let words =
        "--fork-socket /s --fork-drive root=/drives/root --fork-tap eth0=7 --fork-lifeline 8";
    let words: Vec<_> = words.split(' ').collect();
    let waiting = options(&words).fork.unwrap();
    assert_eq!(waiting.images, [("root".into(), "/drives/root".into())]);
    assert_eq!(waiting.taps, [("eth0".into(), 7)]);
    assert_eq!(waiting.lifeline, Some(8));
    for words in [
        "--fork-tap eth0=7",
        "--fork-socket /s --fork-tap eth0=2",
        "--fork-socket /s --fork-tap =7",
        "--fork-socket /s --fork-tap eth0",
        "--fork-lifeline 8",
        "--fork-socket /s --fork-lifeline 2",
    ] {
        let words: Vec<_> = words.split(' ').collect();
        assert!(parse_words(&words).is_err(), "{words:?}");
    }
}
