use super::*;

#[test]
fn a_partition_s_node_ends_with_its_number() {
    let number = |node: &str| {
        let partition = Partition {
            node: node.into(),
            start: 0,
            size: 0,
            name: None,
        };
        partition.number()
    };
    assert_eq!(number("/dev/sdb1"), "1");
    assert_eq!(number("/dev/nvme0n1p12"), "12");
    assert_eq!(number("/dev/loop0p3"), "3");
    assert_eq!(number(""), "");
}

#[test]
fn sfdisk_s_report_is_read() {
    let text = r#"{"partitiontable": {"label":"gpt", "id":"X", "device":"/dev/loop0", "unit":"sectors",
        "firstlba":2048, "lastlba":409566, "sectorsize":512, "partitions": [
        {"node": "/dev/loop0p1", "start": 2048, "size": 20480, "type": "T", "uuid": "U", "name": "web1"},
        {"node": "/dev/loop0p2", "start": 22528, "size": 100, "type": "T", "uuid": "U"}]}}"#;
    let report: Report = serde_json::from_str(text).unwrap();
    let table = report.partitiontable;
    assert_eq!(table.partitions[0].name.as_deref(), Some("web1"));
    assert_eq!(table.partitions[1].name, None);
    // The second partition ends at 22628, the next to begin at 24576.
    assert_eq!(table.largest_gap(), (409_567 - 24_576) * 512);
}

#[test]
fn names_with_a_meaning_in_a_script_are_refused() {
    let disk = Disk {
        device: "/dev/null".into(),
    };
    let long = "x".repeat(37);
    for name in ["a\"b", "a,b", "a b", "ä", &long] {
        assert!(disk.check_name(name).is_err(), "{name}");
    }
    disk.check_name("web-1.img").unwrap();
}
