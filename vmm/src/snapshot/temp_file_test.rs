use super::*;
use std::io::Write as _;

#[test]
fn the_old_file_is_there_until_the_new_one_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "old").unwrap();
    let aside = TempFile::create(&path).unwrap();
    aside.file().unwrap().write_all(b"new").unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    let second = TempFile::create(&path).err().unwrap();
    assert_eq!(second.kind(), io::ErrorKind::WouldBlock);
    aside.sync().unwrap();
    aside.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
    assert!(!partial(&path).exists());
}

#[test]
fn one_that_was_given_up_is_gone_and_one_left_over_is_written_over() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    drop(TempFile::create(&path).unwrap());
    assert!(!partial(&path).exists());
    std::fs::write(partial(&path), "of one that was killed").unwrap();
    let aside = TempFile::create(&path).unwrap();
    aside.file().unwrap().write_all(b"new").unwrap();
    aside.commit().unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"new");
}

#[test]
fn what_cannot_be_a_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    assert!(TempFile::create(dir.path()).is_err());
    assert!(TempFile::create(&dir.path().join("no/such/directory")).is_err());
    let link = dir.path().join("link");
    std::os::unix::fs::symlink("/etc/passwd", partial(&link)).unwrap();
    assert!(TempFile::create(&link).is_err(), "a link is not followed");
}
