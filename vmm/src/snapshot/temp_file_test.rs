use super::*;
use std::io::Write as _;

#[test]
fn the_old_file_stays_until_the_new_one_is_committed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "old").unwrap();
    let file = TempFile::create(&path).unwrap();
    file.file().unwrap().write_all(b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let second = TempFile::create(&path).err().unwrap();
    assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    file.sync().unwrap();
    file.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert!(!partial(&path).exists());
}

#[test]
fn a_dropped_file_is_removed_and_a_leftover_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    drop(TempFile::create(&path).unwrap());
    assert!(!partial(&path).exists());
    std::fs::write(partial(&path), "of one that was killed").unwrap();
    let file = TempFile::create(&path).unwrap();
    file.file().unwrap().write_all(b"new").unwrap();
    file.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
}

#[test]
fn directories_and_links_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(TempFile::create(dir.path()).is_err());
    assert!(TempFile::create(&dir.path().join("no/such/directory")).is_err());
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/etc/passwd", partial(&link)).unwrap();
    assert!(TempFile::create(&link).is_err(), "a link is not followed");
}
