//! API requests, one connection each.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time limit for the socket to appear, and for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects as soon as the socket has a listener.
pub fn connect(socket: &Path) -> UnixStream {
    let start = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(e) => assert!(start.elapsed() < PATIENCE, "{}: {e}", socket.display()),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Sends a request. Returns the status and the body of the answer.
pub fn ask(socket: &Path, method: &str, path: &str, body: &str) -> (u16, String) {
    ask_over(connect(socket), method, path, body).unwrap()
}

/// Like [`ask`], over a connection whose other side may close.
pub fn ask_over(
    mut stream: UnixStream,
    method: &str,
    path: &str,
    body: &str,
) -> io::Result<(u16, String)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = match body {
        "" => String::new(),
        body => format!("Content-Length: {}\r\n", body.len()),
    };
    let request = format!("{method} {path} HTTP/1.1\r\n{length}\r\n{body}");
    stream.write_all(request.as_bytes())?;
    // No further request follows, so the connection ends with the answer.
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok((status.unwrap_or_default(), body.to_owned()))
}
