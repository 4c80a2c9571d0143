use super::*;

const LEAST: [&str; 8] = [
    "--id",
    "web-1",
    "--exec-file",
    "/usr/bin/bantam",
    "--uid",
    "1000",
    "--gid",
    "1001",
];

fn parse_words(words: &[&str]) -> Result<Action, String> {
    let words = std::iter::once(&"jailer").chain(words);
    parse(words.map(OsString::from))
}

fn options(words: &[&str]) -> Options {
    match parse_words(words).unwrap() {
        Action::Start(options) => *options,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_shortest_command_line_has_compatible_defaults() {
    let options = options(&LEAST);
    assert_eq!(options.base, PathBuf::from("/srv/jailer"));
    assert!(!options.base_given);
    assert_eq!(options.exec_name, "bantam");
    assert_eq!(options.owner.uid.as_raw(), 1000);
    assert_eq!(options.owner.gid.as_raw(), 1001);
    assert_eq!(options.limits.no_file, 2048);
    assert_eq!(options.limits.fsize, None);
    assert!(options.pass_through.is_empty());
}

#[test]
fn arguments_after_the_dashes_are_passed_unchanged() {
    let after = ["--no-api", "--level=debug", "--", "--id", "x"];
    let words: Vec<_> = LEAST.into_iter().chain(["--"]).chain(after).collect();
    assert_eq!(options(&words).pass_through, after);
}

#[test]
fn every_supported_flag_is_read() {
    let more = [
        "--chroot-base-dir",
        "/j",
        "--config-file",
        "vm.json",
        "--netns",
        "/run/netns/a",
        "--resource-limit",
        "no-file=64",
        "--resource-limit",
        "fsize=100",
        "--daemonize",
        "--new-pid-ns",
        "--new-user-ns",
        "--cgroup",
        "cpu.weight=5",
        "--cgroup-version",
        "2",
        "--parent-cgroup",
        "all/mine",
    ];
    let words: Vec<_> = LEAST.into_iter().chain(more).collect();
    // `no-file=64` is a value, not a flag with a value.
    let options = options(&words);
    assert!(options.base_given);
    assert_eq!(options.config_file, Some("vm.json".into()));
    assert_eq!(options.netns, Some("/run/netns/a".into()));
    assert_eq!(options.limits.no_file, 64);
    assert_eq!(options.limits.fsize, Some(100));
    let process = options.process;
    assert!(process.daemonize && process.new_pid_ns && process.new_user_ns);
    assert_ne!(options.cgroup, cgroup::Request::default());
}

#[test]
fn uid_auto_takes_a_range() {
    let words = [
        "--id",
        "a",
        "--exec-file",
        "x",
        "--uid",
        "auto",
        "--uid-range",
        "5-6",
    ];
    let numbers: Vec<_> = options(&words).allot.unwrap().numbers().collect();
    assert_eq!(numbers, [5, 6]);
}

#[test]
fn errors_name_the_flag() {
    let with = |more: &[&'static str]| -> Vec<&str> { [&LEAST[..], more].concat() };
    for (words, part) in [
        (vec![], "--id is missing"),
        (LEAST[..6].to_vec(), "--gid is missing"),
        (with(&["--nonsense"]), "--nonsense"),
        (with(&["--netns=/x"]), "write `--netns /x`"),
        (with(&["--cgroup", "a=b"]), "--cgroup a=b"),
        (with(&["--cgroup-version", "3"]), "--cgroup-version 3"),
        (with(&["--parent-cgroup", "/p"]), "--parent-cgroup /p"),
        (with(&["--uid-range", "1-2"]), "is for `--uid auto`"),
        (
            vec![
                "--id",
                "a",
                "--exec-file",
                "x",
                "--uid",
                "auto",
                "--gid",
                "1",
            ],
            "--gid 1: leave it out",
        ),
        (
            vec!["--id", "a", "--exec-file", "x", "--uid", "me", "--gid", "1"],
            "--uid me",
        ),
        (with(&["--resource-limit", "cpu=1"]), "no-file=N"),
        (
            with(&["--config-file", "a", "--", "--config-file", "b"]),
            "before and after",
        ),
        (
            vec![
                "--id",
                "a/b",
                "--exec-file",
                "x",
                "--uid",
                "1",
                "--gid",
                "1",
            ],
            "--id a/b",
        ),
        (
            vec!["--id", "a", "--exec-file", "/", "--uid", "1", "--gid", "1"],
            "--exec-file /",
        ),
        (
            vec![
                "--id",
                "a",
                "--exec-file",
                "x",
                "--uid",
                "4294967295",
                "--gid",
                "1",
            ],
            "--uid 4294967295",
        ),
    ] {
        let message = parse_words(&words).unwrap_err();
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn help_explains_and_the_version_is_one_line() {
    let Action::Print(help) = parse_words(&["--help"]).unwrap() else {
        panic!("no help");
    };
    for part in [
        "size_mib",
        "bridge",
        "--chroot-base-dir",
        "152",
        "153",
        "-- --no-api",
    ] {
        assert!(help.contains(part), "`{part}` is not in: {help}");
    }
    let Action::Print(version) = parse_words(&["--version"]).unwrap() else {
        panic!("no version");
    };
    assert_eq!(version.lines().count(), 1);
}
