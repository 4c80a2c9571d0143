//! A client's connection: its unparsed input and unsent output.

use super::http::{self, Found, MAX_HEAD, Request};
use super::response::{self, Response};
use devices::util::timer::now;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Size of a read in bytes.
const CHUNK: usize = 16 << 10;
/// Limit of unsent events for one client in bytes.
const MAX_LAG: usize = 256 << 10;

/// The use of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Requests and answers.
    Requests,
    /// A stream of events until the client disconnects.
    Events,
}

/// A connection.
pub(super) struct Connection {
    stream: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes still to come of a rejected request.
    skip: usize,
    mode: Mode,
    /// Whether the client closed its sending side.
    ended: bool,
    /// Whether the connection ends after the last answer.
    closing: bool,
    sent_continue: bool,
    /// Time of the last transfer in either direction.
    active: Duration,
}

/// The next step of a connection.
pub(super) enum Next {
    /// Wait for input, or for room for output.
    Wait,
    /// Answer this request.
    Answer(Request),
    /// Close the connection.
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
            sent_continue: false,
            active: now(),
        }
    }

    /// Returns whether to wait for input. A client that does not read its answers must do so first.
    pub(super) fn wants_input(&self) -> bool {
        !self.ended && !self.closing && (self.output.is_empty() || self.mode == Mode::Events)
    }

    pub(super) fn wants_output(&self) -> bool {
        !self.output.is_empty()
    }

    /// Returns when the connection became idle: no request is incomplete, all answers are sent, and no events are streamed.
    pub(super) fn idle_since(&self) -> Option<Duration> {
        let at_rest = self.input.is_empty() && self.output.is_empty() && self.skip == 0;
        (at_rest && self.mode == Mode::Requests).then_some(self.active)
    }

    /// Reads at most one chunk.
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

    /// Writes as much output as the client takes.
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

    /// Parses the input and returns the next step.
    pub(super) fn next(&mut self, max_body: usize) -> Next {
        if self.mode == Mode::Events {
            return match self.ended {
                true => Next::Close,
                false => Next::Wait,
            };
        }
        // The next request is answered only after the client has read the last answer.
        while self.output.is_empty() && !self.closing && self.skip == 0 && !self.input.is_empty() {
            match http::find(&self.input, max_body) {
                Found::Incomplete { expects_continue } => {
                    if expects_continue && !self.sent_continue {
                        self.sent_continue = true;
                        self.output.extend(response::continue_100());
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
        self.sent_continue = false;
        // Frees the memory of a large request, because clients keep connections open.
        if self.input.is_empty() && self.input.capacity() > MAX_HEAD {
            self.input = Vec::new();
        }
    }

    pub(super) fn answer(&mut self, response: &Response) {
        self.output.extend(response.bytes());
    }

    /// Turns the connection into a stream of events.
    pub(super) fn stream_events(&mut self) {
        self.mode = Mode::Events;
        self.closing = false;
        self.input = Vec::new();
        self.output.extend(response::stream());
    }

    /// Queues `line` for a streaming client. Returns false if the client lags too far behind.
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
