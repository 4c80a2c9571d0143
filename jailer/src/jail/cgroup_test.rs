use super::*;

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn request(values: &[&str], version: Option<&str>) -> Request {
    Request::parse(&words(values), version, None, "bantam").unwrap()
}

const HYBRID: &str = "\
sysfs /sys sysfs rw 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nsdelegate 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/my\\040pids cgroup rw,pids 0 0
";

#[test]
fn paths_outside_the_hierarchy_are_refused() {
    for (value, version, parent) in [
        ("cpu.weight=1", Some("3"), None),
        ("cpu.weight", None, None),
        ("cpu.weight=", None, None),
        ("cpu=1", None, None),
        ("../cpu.weight=1", None, None),
        ("/cpu.weight=1", None, None),
        ("a.b=c=d", None, None),
        ("cpu.weight=1", None, Some("/abs")),
        ("cpu.weight=1", None, Some("a/../b")),
        ("cpu.weight=1", None, Some("./a")),
        ("cpu.weight=1", None, Some("")),
    ] {
        let parsed = Request::parse(&words(&[value]), version, parent, "bantam");
        assert!(parsed.is_err(), "{value} {version:?} {parent:?}");
    }
    let parsed = Request::parse(&[], None, Some("a/b"), "bantam").unwrap();
    assert_eq!(parsed.parent, Path::new("a/b"));
}

#[test]
fn version_1_is_used_if_it_has_the_controller() {
    let mounted = hierarchies(HYBRID);
    let mut problems = Vec::new();
    let values = ["cpu.shares=2", "cpuacct.usage=0", "pids.max=9"];
    let plan = plan(&request(&values, None), "g", &mounted, &mut problems);
    assert_eq!(problems, []);
    assert_eq!(
        plan.directories(),
        [
            Path::new("/sys/fs/cgroup/cpu,cpuacct/bantam/g"),
            Path::new("/sys/fs/cgroup/my pids/bantam/g")
        ]
    );
}

#[test]
fn a_missing_controller_is_reported() {
    let mounted = hierarchies(HYBRID);
    let mut problems = Vec::new();
    plan(
        &request(&["cpu.weight=2"], Some("2")),
        "g",
        &mounted,
        &mut problems,
    );
    plan(
        &request(&["rdma.max=2"], None),
        "g",
        &mounted,
        &mut problems,
    );
    let text: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(text.len(), 2, "{text:?}");
    assert!(
        text[0].contains("version 2") && text[0].contains("`cpu`"),
        "{text:?}"
    );
    assert!(text[1].contains("`rdma`"), "{text:?}");
}

#[test]
fn without_values_no_group_is_made() {
    let mut problems = Vec::new();
    for version in [None, Some("1"), Some("2")] {
        let plan = plan(
            &request(&[], version),
            "g",
            &hierarchies(HYBRID),
            &mut problems,
        );
        assert_eq!(plan.directories(), Vec::<PathBuf>::new());
    }
    assert_eq!(problems, []);
}
