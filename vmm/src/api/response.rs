//! Answers as bytes, in the form that clients know: no reason phrase, and no length where there is no body.

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

    /// To what was carried out, or was not.
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

    /// To a request that no route takes.
    pub fn unrouted(error: &RouteError) -> Self {
        Self::fault(400, &error.to_string())
    }

    /// To bytes that are no request.
    pub fn rejected(rejected: &Rejected) -> Self {
        // Written by hand there too: a line feed within a string, which is no JSON.
        let body = format!(
            "{{ \"error\": \"{}\nAll previous unanswered requests will be dropped.\" }}",
            rejected.error.replace(['"', '\\'], "'")
        );
        Self::new(400, Some(body))
    }

    /// Marks it as an answer to something that should not be used any more.
    pub fn deprecated(mut self, deprecated: bool) -> Self {
        self.deprecation = deprecated;
        self
    }

    /// Whether something failed.
    pub fn failed(&self) -> bool {
        self.status >= 400
    }

    /// The status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// As it is sent.
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

/// Leave to send a body.
pub(super) fn leave() -> Vec<u8> {
    format!("{}\r\n", head(100)).into_bytes()
}

/// The head of a stream of JSON lines, which ends with the connection.
pub(super) fn stream() -> Vec<u8> {
    "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: close\r\nContent-Type: application/x-ndjson\r\n\r\n"
        .into()
}
