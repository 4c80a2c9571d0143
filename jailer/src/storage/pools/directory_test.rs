use super::*;

#[test]
fn the_last_mount_on_a_directory_counts() {
    let text = b"22 1 0:5 / / rw - ext4 /dev/root rw\n\
        30 22 0:40 / /srv/a\\040b rw,nosuid shared:1 - nfs4 10.0.0.2:/old rw\n\
        31 22 0:41 / /srv/a\\040b rw,nosuid shared:1 master:2 - nfs4 10.0.0.2:/new\\134x rw\n\
        broken\n";
    let at = |path: &str| source_at(text, Path::new(path));
    assert_eq!(at("/srv/a b").as_deref(), Some("10.0.0.2:/new\\x"));
    assert_eq!(at("/").as_deref(), Some("/dev/root"));
    assert_eq!(at("/srv"), None);
    assert!(same_source("h:/", "h:"));
}

#[test]
fn an_address_with_colons_is_bracketed() {
    let definition = |host: &str| PoolDefinition {
        name: "p".into(),
        kind: resources::PoolType::Netfs,
        source_host: Some(host.into()),
        source_path: Some("/e".into()),
        source_options: Some("vers=4.2".into()),
        source_dev: None,
        source_name: None,
        target: None,
    };
    let remote = |host: &str| Directory::new(&definition(host)).remote.unwrap();
    assert_eq!(remote("fe80::1").source, "[fe80::1]:/e");
    assert_eq!(remote("nas").source, "nas:/e");
    assert_eq!(remote("nas").options, "nosuid,nodev,noexec,vers=4.2");
    let target = Directory::new(&definition("nas")).target;
    assert_eq!(target, Path::new("/var/lib/bantam/pools/p"));
}
