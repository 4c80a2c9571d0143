use super::*;

fn read(line: &str) -> Result<Command, Output> {
    let words = std::iter::once("bantamctl").chain(line.split(' '));
    parse(words.map(OsString::from))
}

fn wrong(line: &str) -> String {
    match read(line) {
        Err(Output::Wrong(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

/// Collects the help pages of `command` and of all commands below it.
fn pages(mut command: clap::Command, pages: &mut Vec<(String, String)>) {
    let name = command.get_name().to_owned();
    pages.push((name.clone(), command.render_help().to_string()));
    pages.push((name, command.render_long_help().to_string()));
    for inner in command.get_subcommands() {
        self::pages(inner.clone(), pages);
    }
}

#[test]
fn help_fits_100_columns_and_shows_examples() {
    let mut all = Vec::new();
    pages(program(), &mut all);
    assert!(all.len() > 40, "{}", all.len());
    for (name, text) in all {
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{name}: {line}");
        }
        if name != "bantamctl" {
            assert!(text.contains("Example"), "{name}: {text}");
        }
    }
}

#[test]
fn help_lists_every_command_in_a_group() {
    let Err(Output::Requested(help)) = read("--help") else {
        panic!("no help");
    };
    for command in Program::command().get_subcommands() {
        let name = command.get_name();
        let groups: Vec<_> = GROUPS.iter().flat_map(|(_, names)| *names).collect();
        assert!(groups.contains(&&name), "{name} is in no group");
        assert!(help.contains(&format!("\n  {name} ")), "{name}: {help}");
    }
    assert!(matches!(read("pool"), Err(Output::Missing(_))));
    for part in ["Guests:", "Storage:", "153"] {
        assert!(help.contains(part), "`{part}` is not in: {help}");
    }
}

#[test]
fn values_may_follow_an_equals_sign() {
    let line = "create --name=web1 --ram=512 --vcpus=2 --kernel=/k --disk=path=/d,size=1";
    assert!(matches!(read(line), Ok(Command::Create(_))));
    assert!(matches!(
        read("create -n web1 --memory 512"),
        Ok(Command::Create(_))
    ));
    assert!(matches!(read("pool list --json"), Ok(Command::Pool(_))));
}

#[test]
fn errors_name_the_mistake_and_suggest_the_nearest_word() {
    for (line, part) in [
        ("creat", "'create'"),
        ("volume resiz", "'resize'"),
        ("stop --forse web1", "'--force'"),
        ("create --name a --ram 2G", "a number of MiB"),
        ("create --name a --vcpus 300", "300"),
        ("volume resize a --pool p --size many", "write a size"),
        ("start", "NAME"),
    ] {
        let text = wrong(line);
        assert!(text.contains(part), "`{part}` is not in: {text}");
        assert!(!text.starts_with("error"), "{text}");
    }
}

#[test]
fn completions_and_man_pages_cover_all_commands() {
    let mut bash = Vec::new();
    clap_complete::generate(
        clap_complete::Shell::Bash,
        &mut Program::command(),
        "bantamctl",
        &mut bash,
    );
    let bash = String::from_utf8(bash).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let man = Man {
        directory: Some(dir.path().into()),
    };
    man.run().unwrap();
    for command in Program::command().get_subcommands() {
        let name = command.get_name();
        assert!(bash.contains(name), "{name}");
        assert!(
            dir.path().join(format!("bantamctl-{name}.1")).exists(),
            "{name}"
        );
    }
    assert!(dir.path().join("bantamctl.1").exists());
}
