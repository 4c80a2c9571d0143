use super::*;

#[test]
fn each_type_waits_for_what_it_needs() {
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
fn the_template_is_complete() {
    assert_eq!(TEMPLATE.matches("@JAILER@ pool st").count(), 2);
    assert_eq!(unit("web-1"), "bantam-pool@web-1.service");
    assert_eq!(units::escaped(Path::new("/a%b/j")), "/a%%b/j");
}
