//! The host's side of a guest's vsock.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

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
