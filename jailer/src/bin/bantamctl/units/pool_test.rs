use super::*;

#[test]
fn a_pool_starts_after_what_its_type_needs() {
    let pool = |json: &str| drop_in(&serde_json::from_str(json).unwrap());
    let text = pool(r#"{"name":"a","type":"dir","target":"/srv/my images"}"#);
    assert!(
        text.contains("\nRequiresMountsFor=/srv/my\\x20images\n"),
        "{text}"
    );
    let text = pool(r#"{"name":"a","type":"netfs"}"#);
    assert!(text.contains("After=network-online.target"), "{text}");
    let text = pool(r#"{"name":"a","type":"disk","source_dev":"/dev/disk/by-id/a-b"}"#);
    let unit = "dev-disk-by\\x2did-a\\x2db.device";
    assert!(text.contains(&format!("\nAfter={unit}\n")), "{text}");
}

#[test]
fn names_and_paths_are_escaped_as_systemd_reads_them() {
    assert_eq!(unit("web-1"), "bantam-pool@web-1.service");
    assert_eq!(escaped(Path::new("/a%b/j")), "/a%%b/j");
}
