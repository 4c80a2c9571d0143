//! API requests to a monitor over its Unix socket.

use crate::Failure;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);
/// Time between two attempts to connect.
const PAUSE: Duration = Duration::from_micros(20);

/// Waits until `socket` accepts a connection.
pub fn connect(socket: &Path) -> Result<UnixStream, Failure> {
    let started = Instant::now();
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                return Ok(stream);
            }
            Err(e) if started.elapsed() > PATIENCE => return Err(e.into()),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Sends one request, which must succeed, and returns the body of the answer. `null` means no body. The connection stays open.
pub fn call(
    stream: &mut UnixStream,
    method: &str,
    path: &str,
    body: &Value,
) -> Result<String, Failure> {
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    loop {
        let mut bytes = [0; 4096];
        let len = stream.read(&mut bytes)?;
        answer.extend(bytes.get(..len).unwrap_or_default());
        let text = String::from_utf8_lossy(&answer);
        let parts = text.split_once("\r\n\r\n");
        let whole = parts.is_some_and(|(head, body)| body.len() >= length(head));
        if len > 0 && !whole {
            continue;
        }
        return match parts {
            Some((head, body)) if head.starts_with("HTTP/1.1 2") => Ok(body.to_owned()),
            _ => Err(format!("{method} {path}: {text}").into()),
        };
    }
}

/// Returns the content length in `head`.
fn length(head: &str) -> usize {
    let mut headers = head.lines().filter_map(|line| line.split_once(':'));
    let found = headers.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    found.map_or(0, |(_, value)| value.trim().parse().unwrap_or(0))
}
