//! Sockets in a guest's jail, as the superuser uses them: what is there belongs to the guest's user, who may
//! have put anything in their place, and answers as it likes.

use super::Guest;
use crate::dir::{by_descriptor, kind};
use nix::sys::stat::{SFlag, fstat};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// The directory of sockets in the jail.
const RUN: &str = "run";
/// The API there.
const API: &str = "firecracker.socket";
/// The console there.
pub const CONSOLE: &str = "console.socket";
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 16;

/// Connects to the socket `name`, which must be one and the guest's own.
///
/// # Errors
/// What the host says.
pub fn connect(guest: &Guest, name: &str) -> io::Result<UnixStream> {
    let root = guest.root()?;
    let owner = root.own_stat()?.st_uid;
    let socket = root.enter(RUN)?.handle(name)?;
    let stat = fstat(&socket)?;
    if kind(&stat) != SFlag::S_IFSOCK || stat.st_uid != owner {
        return Err(io::Error::other("it is no socket of the guest's"));
    }
    // By the descriptor: what the name leads to may have changed meanwhile.
    UnixStream::connect(by_descriptor(&socket))
}

/// Asks the guest's VMM for an action of the API.
///
/// # Errors
/// What the host says, or what the VMM answers.
pub fn act(guest: &Guest, action: &str) -> io::Result<()> {
    let mut stream = connect(guest, API)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let body = serde_json::json!({"action_type": action}).to_string();
    write!(
        stream,
        "PUT /actions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let answer = read_answer(&mut stream)?;
    let status = answer.split(' ').nth(1).unwrap_or_default();
    if status == "204" {
        return Ok(());
    }
    let text: String = answer
        .lines()
        .last()
        .unwrap_or_default()
        .chars()
        .take(300)
        .collect();
    let text = text.replace(char::is_control, "?");
    Err(io::Error::other(format!("it answered {status:.3}: {text}")))
}

/// Reads until the head has ended; the VMM keeps the connection open.
fn read_answer(stream: &mut UnixStream) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut part = [0; 1024];
    let mut stream = stream.take(MAX_ANSWER);
    while !bytes.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => break,
            len => bytes.extend_from_slice(part.get(..len).unwrap_or_default()),
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
