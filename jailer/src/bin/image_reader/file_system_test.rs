use super::*;
use crate::test_image::{self, MIB};
use std::fs::File;
use std::path::Path;

fn window(path: &Path) -> Window {
    let file = File::open(path).unwrap();
    let len = file.metadata().unwrap().len();
    Window::new(file, len)
}

fn open(path: &Path) -> FileSystem {
    let window = window(path);
    let kind = kind(&window).unwrap().unwrap();
    FileSystem::open(kind, window).unwrap()
}

#[test]
fn files_and_directories_of_ext4_and_fat_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let long = vec![7; 300_000];
    let contents: test_image::Contents<'_> = &[("/a/b.conf", b"text"), ("/a/long", &long)];
    for (path, mark) in [
        (test_image::ext4(dir.path(), 8, contents), Kind::Ext),
        (test_image::fat(dir.path(), 8, contents), Kind::Fat),
    ] {
        assert_eq!(kind(&window(&path)).unwrap(), Some(mark));
        let system = open(&path);
        let mut names = system.names("/a").unwrap().unwrap();
        names.retain(|name| !name.starts_with('.'));
        names.sort();
        assert_eq!(names, ["b.conf", "long"]);
        assert_eq!(system.read("/a/b.conf", 4).unwrap().unwrap(), b"text");
        assert_eq!(system.read("/a/long", MIB).unwrap().unwrap(), long);
        let error = system.read("/a/b.conf", 3).unwrap_err();
        assert!(error.contains("longer than 3 bytes"), "{error}");
        assert_eq!(system.read("/a/none", MIB).unwrap(), None);
        assert_eq!(system.names("/none").unwrap(), None);
        assert!(system.has("/a/long").unwrap() && !system.has("/none/long").unwrap());
        assert!(system.read("/a", MIB).is_err());
    }
}

#[test]
fn circular_links_terminate() {
    let dir = tempfile::tempdir().unwrap();
    let path = test_image::ext4(
        dir.path(),
        8,
        &[
            ("/boot/k-1", b"k"),
            ("/k", b"-> boot/k-1"),
            ("/up", b"-> ../../../boot/k-1"),
            ("/a", b"-> b"),
            ("/b", b"-> a"),
            ("/outside", b"-> /etc/hostname"),
        ],
    );
    let system = open(&path);
    for name in ["/k", "/up"] {
        assert_eq!(system.read(name, 9).unwrap().unwrap(), b"k");
    }
    assert!(system.read("/a", 9).unwrap_err().contains("/a"));
    assert_eq!(system.read("/outside", 9).unwrap(), None);
}

#[test]
fn unsupported_file_systems_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other");
    for (bytes, expected) in [
        (b"XFSB".to_vec(), Some(Kind::Other("XFS"))),
        (
            [vec![0; 512], b"LABELONE".to_vec()].concat(),
            Some(Kind::Other("LVM")),
        ),
        (
            [vec![0; 4086], b"SWAPSPACE2".to_vec()].concat(),
            Some(Kind::Other("swap")),
        ),
        (vec![0; 1 << 17], None),
        (Vec::new(), None),
    ] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(kind(&window(&path)).unwrap(), expected);
    }
}

#[test]
fn the_bytes_read_in_total_are_limited() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    File::create(&path).unwrap().set_len(1 << 40).unwrap();
    let whole = window(&path);
    let part = whole.part(1 << 30, 1 << 20);
    let mut block = vec![0; 1 << 20];
    let reads = (0..).take_while(|_| part.read_exact_at(0, &mut block).is_ok());
    assert_eq!(reads.count(), 4096);
    let error = whole.read_exact_at(0, &mut block).unwrap_err();
    assert!(error.to_string().contains("in a circle"), "{error}");
}
