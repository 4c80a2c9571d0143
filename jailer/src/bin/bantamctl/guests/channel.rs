//! Connections to sockets in a guest's jail. They belong to the guest's user, who may have put anything in their place
//! and answers as it likes, so the socket is checked and every answer is bounded.

use crate::guests::guest::Guest;
use jailer::jail::layout::{API, RUN};
use jailer::sys::dir::{by_descriptor, kind};
use nix::sys::stat::{SFlag, fstat};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Time limit of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 16;

/// Connects to the socket `name`, which must belong to the guest's user.
pub fn connect(guest: &Guest, name: &str) -> io::Result<UnixStream> {
    let root = guest.root()?;
    let owner = root.own_stat()?.st_uid;
    let socket = root.enter(RUN)?.handle(name)?;
    let stat = fstat(&socket)?;
    if kind(&stat) != SFlag::S_IFSOCK || stat.st_uid != owner {
        return Err(io::Error::other("it is not a socket of the guest"));
    }
    // By the descriptor, because the name may lead elsewhere by now.
    UnixStream::connect(by_descriptor(&socket))
}

/// Requests an action of the guest's API.
pub fn act(guest: &Guest, action: &str) -> io::Result<()> {
    let body = serde_json::json!({"action_type": action}).to_string();
    put(guest, "/actions", &body, PATIENCE).map(drop)
}

/// Sends a PUT request to the guest's API; returns the body of the answer.
///
/// # Errors
/// An error of the host, or the API's error message.
pub fn put(guest: &Guest, path: &str, body: &str, patience: Duration) -> io::Result<String> {
    let answer = ask(guest, &format!("PUT {path}"), body, patience)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if matches!(status, "200" | "204") {
        let body = answer.split_once("\r\n\r\n").unwrap_or_default().1;
        return Ok(body.to_owned());
    }
    let text = answer.lines().last().unwrap_or_default();
    let text: String = text.chars().take(300).collect();
    let text = text.replace(char::is_control, "?");
    Err(io::Error::other(format!("it answered {status:.3}: {text}")))
}

/// Returns whether the guest runs; its images are locked by then.
///
/// # Errors
/// An error of the host, if the API does not listen yet, or no longer.
pub fn is_up(guest: &Guest) -> io::Result<bool> {
    Ok(ask(guest, "GET /", "", PATIENCE)?.contains("\"Running\""))
}

/// Sends a request; returns the answer with its header.
fn ask(guest: &Guest, request: &str, body: &str, patience: Duration) -> io::Result<String> {
    let mut stream = connect(guest, API)?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write!(
        stream,
        "{request} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    read_answer(&mut stream)
}

/// Reads one answer; the monitor keeps the connection open.
fn read_answer(stream: &mut UnixStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    let mut stream = stream.take(MAX_ANSWER);
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let mut lines = head.lines();
            let length = lines.find_map(|line| {
                let (key, value) = line.split_once(':')?;
                let is_length = key.eq_ignore_ascii_case("content-length");
                is_length.then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return Ok(text);
            }
        }
        match stream.read(&mut part)? {
            0 => return Ok(text),
            len => bytes.extend_from_slice(part.get(..len).unwrap_or_default()),
        }
    }
}
