use super::*;

#[test]
fn a_new_volume_has_its_guest_s_name() {
    let drive = parse("pool=web,size=20,format=raw", "web1", 0, None).unwrap();
    assert_eq!(drive.pool.as_deref(), Some("web"));
    assert_eq!(drive.path_on_host, Some("web1".into()));
    assert_eq!(drive.size_mib, Some(20 << 10));
    assert_eq!(drive.cache_type, CacheType::Writeback);
    let second = parse("pool=web,size=512M", "web1", 1, None).unwrap();
    assert_eq!(second.path_on_host, Some("web1-1".into()));
    assert_eq!(
        (second.drive_id.as_str(), second.size_mib),
        ("disk1", Some(512))
    );
}

#[test]
fn invalid_disks_are_refused() {
    for (text, part) in [
        ("size=20", "give pool=POOL"),
        ("pool=a,path=/x", "either pool or path"),
        ("pool=a,format=qcow2", "volume import"),
        ("pool=a,size=0", "size="),
        ("pool=a,bus=ide", "unknown key `bus`"),
        ("path=/x,name=y", "in a pool"),
        ("path=/x,cache=sometimes", "cache="),
    ] {
        let message = parse(text, "g", 0, None).unwrap_err();
        assert!(message.contains(part), "{text}: {message}");
    }
}
