//! A strict client: it accounts for every byte of an answer and checks it against the OpenAPI file.

use crate::monitor::{PATIENCE, wait_until};
use crate::openapi;
use serde_json::Value;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// The headers in their order.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// Fails unless the status is `status`.
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.body);
        self
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let header = self.headers.iter().find(|(key, _)| key == name);
        header.map(|(_, value)| value.as_str())
    }

    /// Returns the body as JSON. The body of a parse error has a line feed where JSON allows none.
    pub fn json(&self) -> Value {
        let text = self.body.replace('\n', " ");
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }
}

/// A connection to the API.
pub struct Client {
    pub stream: UnixStream,
    unread: Vec<u8>,
}

impl Client {
    /// Connects as soon as the monitor listens.
    pub fn connect(socket: &Path) -> Self {
        let stream = wait_until("a socket that accepts", || UnixStream::connect(socket).ok());
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self {
            stream,
            unread: Vec::new(),
        }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, None)
    }

    pub fn put(&mut self, path: &str, body: &str) -> Answer {
        self.call("PUT", path, Some(body))
    }

    pub fn patch(&mut self, path: &str, body: &str) -> Answer {
        self.call("PATCH", path, Some(body))
    }

    /// Returns the value of `name` in the Prometheus text.
    pub fn count(&mut self, name: &str) -> u64 {
        let text = self.get("/metrics/prometheus").expect(200).body;
        let line = text.lines().find(|line| line.starts_with(name));
        let number = line.and_then(|line| line.rsplit_once(' '));
        let (_, number) = number.unwrap_or_else(|| panic!("no {name} in {text}"));
        number.parse().unwrap()
    }

    /// Sends a request, and checks the answer against the OpenAPI file.
    pub fn call(&mut self, method: &str, path: &str, body: Option<&str>) -> Answer {
        self.send(request(method, path, body).as_bytes());
        let answer = self.answer();
        openapi::check(method, path, body, &answer);
        answer
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// Receives an answer.
    pub fn answer(&mut self) -> Answer {
        let (status, headers) = self.head();
        let len = headers.iter().find(|(name, _)| name == "Content-Length");
        let len = len.map_or(0, |(_, len)| len.parse().unwrap());
        while self.unread.len() < len {
            assert!(self.more(), "the connection ended within a body");
        }
        let body = self.unread.drain(..len).collect();
        Answer {
            status,
            headers,
            body: String::from_utf8(body).unwrap(),
        }
    }

    /// Receives status and headers of an answer.
    pub fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let end = loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            assert!(self.more(), "the connection ended before an answer");
        };
        let head: Vec<u8> = self.unread.drain(..end + 4).collect();
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let status = lines.next().unwrap();
        // There is no reason phrase, but the blank before it is there.
        let code = status.strip_prefix("HTTP/1.1 ");
        let code = code.and_then(|rest| rest.strip_suffix(' '));
        let code = code.unwrap_or_else(|| panic!("status line {status:?}"));
        let headers = lines.map(|line| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_owned(), value.to_owned())
        });
        (code.parse().unwrap(), headers.collect())
    }

    /// Receives a line of a stream.
    pub fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=at).collect();
                return String::from_utf8(line).unwrap();
            }
            assert!(self.more(), "the stream ended");
        }
    }

    /// Returns whether the monitor closed the connection, and everything was read.
    pub fn is_over(&mut self) -> bool {
        self.unread.is_empty() && !self.more()
    }

    /// Reads more bytes. Returns whether there were any.
    fn more(&mut self) -> bool {
        let mut chunk = [0; 4096];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(len) => {
                self.unread.extend_from_slice(&chunk[..len]);
                true
            }
            Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => false,
            Err(e) => panic!("no answer: {e}"),
        }
    }
}

/// Returns a request as most clients write it.
pub fn request(method: &str, path: &str, body: Option<&str>) -> String {
    match body {
        Some(body) => format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        ),
        None => format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"
        ),
    }
}
