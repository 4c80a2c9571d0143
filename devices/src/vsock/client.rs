//! The request of a host client: the line `CONNECT <port>`. Nothing beyond the line is read.

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;

/// Longest line in bytes with its newline: the longest port number and a few blanks.
const MAX_LINE: usize = 32;

/// The request as far as it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A complete request for this guest port.
    Connect(u32),
    /// An incomplete line.
    NotYet,
    /// An invalid line, or the end of the stream.
    Nonsense,
}

/// Reads the request. Bytes after the line stay in the socket for the guest.
pub(super) fn listen_to(stream: &UnixStream) -> Said {
    let mut bytes = [0; MAX_LINE];
    let fd = stream.as_raw_fd();
    let peek = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    let said = match recv(fd, &mut bytes, peek) {
        Ok(0) => return Said::Nonsense,
        Ok(len) => bytes.get(..len).unwrap_or_default(),
        Err(Errno::EAGAIN | Errno::EINTR) => return Said::NotYet,
        Err(_) => return Said::Nonsense,
    };
    let Some(end) = said.iter().position(|byte| *byte == b'\n') else {
        return match said.len() < MAX_LINE {
            true => Said::NotYet,
            false => Said::Nonsense,
        };
    };
    let said = parse(said.get(..end).unwrap_or_default());
    let mut line = [0; MAX_LINE];
    let line = line.get_mut(..=end).unwrap_or_default();
    match recv(fd, line, MsgFlags::MSG_DONTWAIT) {
        Ok(len) if len == end + 1 => said,
        _ => Said::Nonsense,
    }
}

fn parse(line: &[u8]) -> Said {
    let line = std::str::from_utf8(line).unwrap_or_default();
    let mut words = line.split_ascii_whitespace();
    let (verb, port, rest) = (words.next(), words.next(), words.next());
    match (verb, port.map(str::parse), rest) {
        (Some(verb), Some(Ok(port)), None) if verb.eq_ignore_ascii_case("connect") => {
            Said::Connect(port)
        }
        _ => Said::Nonsense,
    }
}
