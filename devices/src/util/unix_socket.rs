//! Unix socket listeners at paths that host clients connect to.

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::FileTypeExt as _;
use std::os::unix::net::UnixListener;
use std::path::Path;

/// Binds a non-blocking listener at `path`. The name appears when clients can connect, not before. A stale socket, as a
/// killed process leaves it, is replaced by a rename, so that the name exists all the time and a second process that does
/// the same never finds it free.
///
/// # Errors
/// An error of the host; `AddrInUse` if the path exists and is no stale socket.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    look(path)?;
    let beside = path.with_file_name(format!(".{:x}", std::process::id()));
    let listener = match UnixAddr::new(&beside) {
        Ok(_) => listen_beside(&beside, path)?,
        // The temporary name is longer than `path` and exceeds the limit for socket paths.
        Err(_) => UnixListener::bind(path)?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn listen_beside(beside: &Path, path: &Path) -> io::Result<UnixListener> {
    // An earlier process with the same process id left it.
    if is_dead(beside) {
        std::fs::remove_file(beside)?;
    }
    let listener = UnixListener::bind(beside)?;
    let named = name(beside, path);
    if named.is_err() {
        let _ = std::fs::remove_file(beside);
    }
    named.map(|()| listener)
}

/// Renames the socket at `beside` to `path`, unless another process took the name.
fn name(beside: &Path, path: &Path) -> io::Result<()> {
    if is_dead(path) {
        return std::fs::rename(beside, path);
    }
    match std::fs::hard_link(beside, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Err(io::ErrorKind::AddrInUse.into()),
        linked => linked.and_then(|()| std::fs::remove_file(beside)),
    }
}

/// Checks whether [`listen`] could bind `path`, without binding it. The directory's permissions are not checked.
///
/// # Errors
/// The error of [`listen`]: `AddrInUse` if the path is taken, or the path is too long.
pub fn look(path: &Path) -> io::Result<()> {
    UnixAddr::new(path)?;
    match path.symlink_metadata() {
        Ok(_) if !is_dead(path) => Err(io::ErrorKind::AddrInUse.into()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Returns true if the socket at `path` has no listener.
fn is_dead(path: &Path) -> bool {
    let is_socket = path
        .symlink_metadata()
        .is_ok_and(|metadata| metadata.file_type().is_socket());
    is_socket && try_connect(path) == Err(Errno::ECONNREFUSED)
}

/// Connects without waiting. A listener with a full backlog gives EAGAIN.
fn try_connect(path: &Path) -> nix::Result<()> {
    let client = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
        None,
    )?;
    connect(client.as_raw_fd(), &UnixAddr::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_at_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        look(&path).unwrap();
        let alive = listen(&path).unwrap();
        let refused = || {
            let kind = listen(&path).unwrap_err().kind();
            assert_eq!(look(&path).unwrap_err().kind(), kind);
            kind
        };
        assert_eq!(refused(), io::ErrorKind::AddrInUse);
        drop(alive);
        look(&path).unwrap();
        drop(listen(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "a file").unwrap();
        assert_eq!(refused(), io::ErrorKind::AddrInUse);
        assert_eq!(std::fs::read(&path).unwrap(), b"a file");
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(dir.path().join("none"), &path).unwrap();
        assert_eq!(refused(), io::ErrorKind::AddrInUse);
        assert!(path.symlink_metadata().is_ok());
    }

    #[test]
    fn a_socket_whose_backlog_is_full_is_alive_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let busy = socket(
            AddressFamily::Unix,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let address = UnixAddr::new(&path).unwrap();
        nix::sys::socket::bind(busy.as_raw_fd(), &address).unwrap();
        nix::sys::socket::listen(&busy, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _waiting = std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(try_connect(&path), Err(Errno::EAGAIN));
        let (tx, rx) = std::sync::mpsc::channel();
        std::thread::spawn(move || tx.send(listen(&path).map_err(|e| e.kind()).err()));
        let refused = rx.recv_timeout(std::time::Duration::from_secs(20));
        assert_eq!(refused, Ok(Some(io::ErrorKind::AddrInUse)));
    }

    #[test]
    fn the_place_of_a_dead_socket_is_never_free() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        // A socket that a process with the same process id left.
        let beside = format!(".{:x}", std::process::id());
        drop(UnixListener::bind(dir.path().join(beside)).unwrap());
        let (done, at) = (std::sync::atomic::AtomicBool::new(false), path.clone());
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    assert!(at.symlink_metadata().is_ok());
                }
            });
            for _ in 0..200 {
                drop(listen(&path).unwrap());
            }
            done.store(true, std::sync::atomic::Ordering::Relaxed);
        });
        let listener = listen(&path).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        assert!(listener.accept().is_ok());
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1, "no temporary name is left");
    }

    #[test]
    fn the_longest_path_can_be_listened_at() {
        let dir = tempfile::tempdir().unwrap();
        let longest = 107 - dir.path().as_os_str().len();
        let path = dir.path().join("d".repeat(longest - 3));
        std::fs::create_dir(&path).unwrap();
        let path = path.join("s");
        assert_eq!(path.as_os_str().len(), 107);
        let _listener = listen(&path).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    }

    #[test]
    fn a_socket_that_is_there_can_be_connected_to() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let path = dir.path().join(round.to_string());
            std::thread::scope(|scope| {
                let connected = scope.spawn(|| {
                    while path.symlink_metadata().is_err() {
                        std::hint::spin_loop();
                    }
                    std::os::unix::net::UnixStream::connect(&path).map(drop)
                });
                let _listener = listen(&path).unwrap();
                connected.join().unwrap().unwrap();
            });
        }
    }
}
