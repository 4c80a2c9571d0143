use super::*;

fn parse(json: &str) -> Result<PoolDefinition, String> {
    let path = std::env::temp_dir().join(format!("pool-{:?}", std::thread::current().id()));
    std::fs::write(&path, json).unwrap();
    let read = PoolDefinition::from_file(&path, "web");
    std::fs::remove_file(path).unwrap();
    read.map_err(|e| e.to_string())
}

#[test]
fn every_pool_type_is_parsed_and_serialized() {
    for json in [
        r#"{"name":"web","type":"dir","target":"/srv/images"}"#,
        r#"{"name":"web","type":"dir"}"#,
        r#"{"name":"web","type":"netfs","source_host":"fe80::1","source_path":"/export","source_options":"vers=4.2,nolock"}"#,
        r#"{"name":"web","type":"logical","source_name":"vg0"}"#,
        r#"{"name":"web","type":"disk","source_dev":"/dev/disk/by-id/x"}"#,
    ] {
        let definition = parse(json).unwrap();
        assert_eq!(serde_json::to_string(&definition).unwrap(), json);
    }
}

#[test]
fn all_problems_are_reported_with_their_keys() {
    for (json, parts) in [
        (
            r#"{"name":"a/b","type":"netfs","source_dev":"x","target":"/a/../b"}"#,
            &[
                "\n  name: `a/b` cannot",
                "must be `web`",
                "source_dev: does not belong to a `netfs`",
                "source_dev: `x` must be an absolute path",
                "source_host: is missing",
                "source_path: is missing",
                "target: `/a/../b`",
            ][..],
        ),
        (
            r#"{"name":"web","type":"netfs","source_host":"-x","source_path":"/\n","source_options":"a b"}"#,
            &["source_host: ", "source_path: ", "source_options: "],
        ),
        (
            r#"{"name":"web","type":"logical","source_name":"../x"}"#,
            &["source_name: "],
        ),
        (
            r#"{"name":"web","type":"dir","size":3}"#,
            &["unknown field `size`"],
        ),
        (r#"{"name":"web","type":"zfs"}"#, &["type: ", "zfs"]),
    ] {
        let text = parse(json).unwrap_err();
        for part in parts {
            assert!(text.contains(part), "`{part}` is not in: {text}");
        }
    }
}

#[test]
fn names_cannot_leave_their_directory() {
    let long = "x".repeat(4096);
    for name in ["", ".", "..", ".x", "-x", "a/b", "a\n", "a\0b", &long] {
        assert!(check_pool_name(name).is_err(), "{name:?}");
        let message = check_volume_name(name).unwrap_err();
        assert!(message.len() < 300, "{message}");
    }
    for name in ["web", "a.b_c-1"] {
        check_pool_name(name).unwrap();
        check_volume_name(name).unwrap();
    }
    check_volume_name("Größe 1.img").unwrap();
    assert!(check_pool_name("Größe").is_err());
}
