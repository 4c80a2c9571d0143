//! The host's side of a guest's vsock.

use super::Running;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// Sets the read and write timeouts of `stream`.
pub fn patient(stream: UnixStream, patience: Duration) -> UnixStream {
    stream.set_read_timeout(Some(patience)).unwrap();
    stream.set_write_timeout(Some(patience)).unwrap();
    stream
}

/// Connects to `port` of the guest behind `socket`, which accepts. `patience` is the timeout of each read and write.
pub fn dial(socket: &Path, port: u32, patience: Duration) -> UnixStream {
    let mut stream = patient(UnixStream::connect(socket).unwrap(), patience);
    writeln!(stream, "CONNECT {port}").unwrap();
    let mut answer = String::new();
    while !answer.ends_with('\n') {
        let mut byte = [0];
        let len = stream.read(&mut byte).unwrap();
        assert_eq!(len, 1, "the guest did not accept: {answer:?}");
        answer.push(char::from(byte[0]));
    }
    assert!(answer.starts_with("OK "), "{answer:?}");
    stream
}

/// Waits until the guest connects to `listener`. A guest that does not connect within `patience` fails the test, with its
/// console.
pub fn accept(listener: &UnixListener, running: &Running, patience: Duration) -> UnixStream {
    listener.set_nonblocking(true).unwrap();
    let started = Instant::now();
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(false).unwrap();
                return stream;
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => {}
            Err(e) => panic!("cannot accept: {e}"),
        }
        assert!(
            started.elapsed() < patience,
            "the guest does not connect:\n{}",
            running.report()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
