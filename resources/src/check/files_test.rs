use super::*;
use std::os::unix::net::UnixListener;
use std::process::Command;

fn fifo(dir: &Path) -> std::path::PathBuf {
    let path = dir.join("fifo");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    path
}

/// A directory that goes with it.
struct Dir(std::path::PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("files-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_fifo_or_directory_is_refused_without_blocking() {
    let dir = Dir::new("refused");
    let socket = dir.0.join("socket");
    let _listener = UnixListener::bind(&socket).unwrap();
    for path in [&dir.0, &fifo(&dir.0), Path::new("/dev/null")] {
        let error = open_regular(path).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{path:?}");
        assert_eq!(error.to_string(), "is not a regular file");
    }
    // The host does not open it at all.
    assert!(open_regular(&socket).is_err());
    let missing = open_regular(&dir.0.join("none")).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    let file = dir.0.join("file");
    std::fs::write(&file, "contents").unwrap();
    let mut text = String::new();
    open_regular(&file)
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    assert_eq!(text, "contents");
}

#[test]
fn a_file_beyond_the_limit_is_refused() {
    let dir = Dir::new("bounded");
    let file = dir.0.join("file");
    std::fs::write(&file, "12345").unwrap();
    assert_eq!(read_bounded(&file, 5).unwrap(), b"12345");
    for path in [&file, Path::new("/dev/zero")] {
        let error = read_bounded(path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(error.to_string(), "is larger than 4 bytes");
    }
}

#[test]
fn a_fifo_is_read_until_its_writer_closes_it() {
    let dir = Dir::new("fifo");
    let path = fifo(&dir.0);
    let at = path.clone();
    let writer = std::thread::spawn(move || std::fs::write(at, "said").unwrap());
    assert_eq!(read_bounded(&path, 5).unwrap(), b"said");
    writer.join().unwrap();
}
