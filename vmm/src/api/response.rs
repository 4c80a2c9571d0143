//! Answers in the form that Firecracker's clients expect: no reason phrase, and no length without a body.

use super::http::Rejected;
use super::routes::RouteError;
use crate::control::command::{CommandError, Reply};
use serde_json::json;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    body: Option<String>,
    content_type: &'static str,
    deprecation: bool,
}

const JSON: &str = "application/json";

impl Response {
    fn new(status: u16, body: Option<String>) -> Self {
        Self {
            status,
            body,
            content_type: JSON,
            deprecation: false,
        }
    }

    fn fault(status: u16, message: &str) -> Self {
        Self::new(status, Some(json!({"fault_message": message}).to_string()))
    }

    /// Returns the answer to a command.
    pub fn to(done: Result<Reply, CommandError>) -> Self {
        match done {
            Ok(Reply::Done) => Self::new(204, None),
            Ok(Reply::Json(json)) => Self::new(200, Some(json)),
            Ok(Reply::Text(text)) => Self {
                content_type: "text/plain; version=0.0.4",
                ..Self::new(200, Some(text))
            },
            Err(e @ CommandError::MetadataTooLarge(_)) => Self::fault(413, &e.to_string()),
            Err(e) => Self::fault(400, &e.to_string()),
        }
    }

    /// Returns the answer to a request without a route.
    pub fn unrouted(error: &RouteError) -> Self {
        Self::fault(400, &error.to_string())
    }

    /// Returns the answer to bytes that are not a valid request.
    pub fn rejected(rejected: &Rejected) -> Self {
        // Firecracker writes a line feed within the string, too, which is not valid JSON.
        let body = format!(
            "{{ \"error\": \"{}\nAll previous unanswered requests will be dropped.\" }}",
            rejected.error.replace(['"', '\\'], "'")
        );
        Self::new(400, Some(body))
    }

    /// Marks the answer to a deprecated request.
    pub fn deprecated(mut self, deprecated: bool) -> Self {
        self.deprecation = deprecated;
        self
    }

    /// Returns whether the request failed.
    pub fn failed(&self) -> bool {
        self.status >= 400
    }

    /// Returns the status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Returns the bytes to send.
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = head(self.status);
        if self.deprecation {
            text.push_str("Deprecation: true\r\n");
        }
        if let Some(body) = &self.body {
            let (kind, len) = (self.content_type, body.len());
            text.push_str(&format!(
                "Content-Type: {kind}\r\nContent-Length: {len}\r\n\r\n{body}"
            ));
        } else {
            text.push_str("\r\n");
        }
        text.into_bytes()
    }
}

fn head(status: u16) -> String {
    format!("HTTP/1.1 {status} \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n")
}

/// Returns `100 Continue`, which lets the client send its body.
pub(super) fn continue_100() -> Vec<u8> {
    format!("{}\r\n", head(100)).into_bytes()
}

/// Returns the head of a stream of JSON lines, which ends with the connection.
pub(super) fn stream() -> Vec<u8> {
    "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n\r\n"
        .into()
}
