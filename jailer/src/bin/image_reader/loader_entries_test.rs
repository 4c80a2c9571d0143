use super::*;

fn entry(name: &str, text: &str) -> LoaderEntry {
    LoaderEntry::parse(name, text).unwrap()
}

#[test]
fn an_entry_is_read() {
    let text = "# comment\ntitle  Debian 12\nversion 6.1\nlinux /m/6.1/linux\ninitrd /a\ninitrd\t/b\n\
                options root=UUID=1 ro\noptions quiet\nunknown x\n";
    let found = entry("m-6.1+3-0.conf", text);
    assert_eq!(found.id, "m-6.1");
    assert_eq!(found.title, "Debian 12");
    let boot = found.boot();
    assert_eq!(boot.kernel, "/m/6.1/linux");
    assert_eq!(boot.arguments, ["root=UUID=1", "ro", "quiet"]);
    assert_eq!(boot.initrds, ["/a", "/b"]);
    assert_eq!(LoaderEntry::parse("x.conf", "title x\nefi /x.efi"), None);
    assert_eq!(LoaderEntry::parse("x.conf.rpmsave", "linux /x"), None);
}

#[test]
fn the_newest_entry_is_the_first() {
    let plain = |id: &str| entry(&format!("{id}.conf"), "linux /k");
    let mut all = [
        plain("m-0-rescue"),
        plain("m-6.9.1"),
        plain("m-6.10.0~rc1"),
        plain("m-6.10.0"),
        entry("z.conf", "linux /k\nsort-key debian\nversion 5.0"),
        entry("y.conf", "linux /k\nsort-key debian\nversion 5.10"),
    ];
    all.sort_by(LoaderEntry::order);
    let ids: Vec<_> = all.iter().map(|entry| entry.id.as_str()).collect();
    let expected = [
        "y",
        "z",
        "m-6.10.0",
        "m-6.10.0~rc1",
        "m-6.9.1",
        "m-0-rescue",
    ];
    assert_eq!(ids, expected);
}

#[test]
fn versions_compare_by_the_value_of_their_numbers() {
    for (less, more) in [
        ("", "1"),
        ("1", "1.0"),
        ("1.2", "1.10"),
        ("1.09", "1.10"),
        ("1~rc1", "1"),
        ("~", ""),
        ("1~a", "1~b"),
        ("a", "b"),
        ("2", "99999999999999999999999999"),
    ] {
        assert_eq!(
            compare_versions(less, more),
            Ordering::Less,
            "{less} {more}"
        );
        assert_eq!(compare_versions(more, less), Ordering::Greater);
    }
    assert_eq!(compare_versions("1.010", "1.10"), Ordering::Equal);
}

#[test]
fn the_order_is_total_for_any_names() {
    use proptest::prelude::*;
    let text = "[~a0-9.]{0,6}";
    let three = (text, text, text);
    crate::test_image::properties(1000)
        .run(&three, |(a, b, c)| {
            let (ab, bc) = (compare_versions(&a, &b), compare_versions(&b, &c));
            prop_assert_eq!(ab, compare_versions(&b, &a).reverse());
            if ab == bc {
                prop_assert_eq!(compare_versions(&a, &c), ab);
            }
            Ok(())
        })
        .unwrap();
}

#[test]
fn the_loader_s_default_is_chosen_by_a_pattern() {
    let all = ["b-2", "a-1"].map(|id| entry(&format!("{id}.conf"), "linux /k"));
    for (config, expected) in [
        ("", "b-2"),
        ("timeout 3\ndefault a-*\n", "a-1"),
        ("default a-1.conf", "a-1"),
        ("default ?-1", "a-1"),
        ("default nothing", "b-2"),
        ("default", "b-2"),
    ] {
        assert_eq!(default(&all, config).unwrap().id, expected, "{config}");
    }
    assert!(matches(b"*a*b*", b"xxaxxb") && !matches(b"*a*b", b"xxaxx"));
    let long = "a".repeat(1 << 16);
    assert!(!matches(b"*a*a*a*a*b", long.as_bytes()));
    assert!(default(&[], "default x").is_none());
}
