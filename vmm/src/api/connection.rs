//! One client: what it has sent, and what it has yet to take.

use super::http::{self, Found, MAX_HEAD, Request};
use super::response::{self, Response};
use devices::util::timer::now;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Bytes read at a time.
const CHUNK: usize = 16 << 10;
/// Most bytes kept for a client of the event stream that does not take them.
const MAX_LAG: usize = 256 << 10;

/// What a client waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Requests and answers.
    Requests,
    /// Events, until it goes.
    Events,
}

/// See the module.
pub(super) struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes to come that belong to a request that was rejected.
    skip: usize,
    mode: Mode,
    /// The client sends no more.
    ended: bool,
    /// It ends with the last answer.
    closing: bool,
    gave_leave: bool,
    /// When bytes last went one way or the other.
    active: Duration,
}

/// What a connection wants next.
pub(super) enum Next {
    /// More bytes, or room for its answers.
    Wait,
    /// An answer to this.
    Answer(Request),
    /// The end.
    Close,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            input: Vec::new(),
            output: Vec::new(),
            skip: 0,
            mode: Mode::Requests,
            ended: false,
            closing: false,
            gave_leave: false,
            active: now(),
        }
    }

    /// Whether to wait for bytes: not from a client that does not take its answers.
    pub(super) fn wants_input(&self) -> bool {
        !self.ended && !self.closing && (self.output.is_empty() || self.mode == Mode::Events)
    }

    pub(super) fn wants_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Since when nobody waits for anything: no request is under way, all answers are taken, and no events are listened to.
    pub(super) fn idle_since(&self) -> Option<Duration> {
        let at_rest = self.input.is_empty() && self.output.is_empty() && self.skip == 0;
        (at_rest && self.mode == Mode::Requests).then_some(self.active)
    }

    /// Takes what is there, up to a chunk.
    pub(super) fn read(&mut self) -> io::Result<()> {
        let mut chunk = [0; CHUNK];
        match self.stream.read(&mut chunk) {
            Ok(0) => self.ended = true,
            Ok(_) if self.mode == Mode::Events => {}
            Ok(len) => {
                self.active = now();
                let skipped = len.min(self.skip);
                self.skip -= skipped;
                let new = chunk.get(skipped..len).unwrap_or_default();
                self.input.extend_from_slice(new);
            }
            Err(e) if is_transient(&e) => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// Sends what the client takes.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => {
                    self.active = now();
                    self.output.drain(..len);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// What to do with what has come.
    pub(super) fn next(&mut self, max_body: usize) -> Next {
        if self.mode == Mode::Events {
            return match self.ended {
                true => Next::Close,
                false => Next::Wait,
            };
        }
        // One answer after the other: what a client does not take is not made.
        while self.output.is_empty() && !self.closing && self.skip == 0 && !self.input.is_empty() {
            match http::find(&self.input, max_body) {
                Found::Incomplete { expects_leave } => {
                    if expects_leave && !self.gave_leave {
                        self.gave_leave = true;
                        self.output.extend(response::leave());
                    }
                    break;
                }
                Found::Request(request, len) => {
                    self.consume(len);
                    return Next::Answer(request);
                }
                Found::Rejected(rejected, len) => {
                    self.consume(len);
                    self.skip = rejected.skip;
                    self.closing = rejected.fatal;
                    self.output.extend(Response::rejected(&rejected).bytes());
                }
            }
        }
        match self.output.is_empty() && (self.ended || self.closing) {
            true => Next::Close,
            false => Next::Wait,
        }
    }

    fn consume(&mut self, len: usize) {
        self.input.drain(..len.min(self.input.len()));
        self.gave_leave = false;
        // A large request must not hold its memory for as long as the client stays.
        if self.input.is_empty() && self.input.capacity() > MAX_HEAD {
            self.input = Vec::new();
        }
    }

    pub(super) fn answer(&mut self, response: &Response) {
        self.output.extend(response.bytes());
    }

    /// From now on the client gets events.
    pub(super) fn stream_events(&mut self) {
        self.mode = Mode::Events;
        self.closing = false;
        self.input = Vec::new();
        self.output.extend(response::stream());
    }

    /// Gives a listening client `line`; returns false if it lags too far.
    pub(super) fn event(&mut self, line: &str) -> bool {
        if self.mode == Mode::Events {
            self.output.extend_from_slice(line.as_bytes());
        }
        self.mode == Mode::Requests || self.output.len() <= MAX_LAG
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
    )
}
