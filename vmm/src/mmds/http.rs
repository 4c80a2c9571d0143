//! The service's HTTP: the bytes of a request become those of a response.
//!
//! [`super::connection`] calls it with received data. Status codes and texts are Firecracker's, and so is the rule that an
//! `Accept` header other than exactly `application/json` asks for text.

use super::metrics::MmdsMetrics;
use super::token::TokenAuthority;
use httparse::{Request, Status};
use resources::MmdsVersion;
use serde_json::Value;
use std::fmt::Write as _;
use std::time::Duration;

/// Limit of a request in bytes: room for a token, a path into deep data, and the headers of clients.
pub const MAX_REQUEST: usize = 4096;
/// Limit of headers in a request.
const MAX_HEADERS: usize = 64;
/// The only path for PUT.
const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_HEADERS: [&str; 2] = ["X-metadata-token", "X-aws-ec2-metadata-token"];
const TTL_HEADERS: [&str; 2] = [
    "X-metadata-token-ttl-seconds",
    "X-aws-ec2-metadata-token-ttl-seconds",
];
const INVALID_REQUEST: &str = "Invalid request.";
const TEXT: &str = "text/plain";
const JSON: &str = "application/json";

/// The data and settings that requests are answered from.
#[derive(Clone, Copy)]
pub struct Service<'a> {
    /// Version of the service: version 2 requires a token.
    pub version: MmdsVersion,
    /// Whether answers are always text.
    pub imds_compat: bool,
    /// The metadata.
    pub data: &'a Value,
    /// Issuer and verifier of tokens.
    pub tokens: &'a TokenAuthority,
    /// Time on the issuer's clock.
    pub now: Duration,
    /// Metrics of tokens.
    pub metrics: &'a MmdsMetrics,
}

/// The answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Length of the request in bytes.
    pub used: usize,
    /// Bytes of the response.
    pub response: Vec<u8>,
    /// Whether the connection must end after the response.
    pub close: bool,
}

/// Answers the request at the start of `bytes`. Returns `None` if the request is incomplete. Invalid bytes and requests
/// longer than [`MAX_REQUEST`] are answered, and end the connection.
pub fn answer(bytes: &[u8], service: &Service<'_>) -> Option<Answer> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = Request::new(&mut headers);
    let last = |status, text: &str| {
        let response = Response::text(status, text).write(Connection::CLOSE);
        Some(Answer {
            used: bytes.len(),
            response,
            close: true,
        })
    };
    match request.parse(bytes) {
        Ok(Status::Complete(used)) => {
            let connection = Connection::of(&request);
            // The length of a body would decide where the next request begins.
            let Some(response) = has_no_body(&request).then(|| respond(&request, service)) else {
                return last("400 Bad Request", INVALID_REQUEST);
            };
            Some(Answer {
                used,
                response: response.write(connection),
                close: connection.close,
            })
        }
        Ok(Status::Partial) if bytes.len() < MAX_REQUEST => None,
        Err(httparse::Error::Version) => last("501 Not Implemented", "Unsupported HTTP version."),
        Ok(Status::Partial) | Err(_) => last("400 Bad Request", INVALID_REQUEST),
    }
}

/// Returns the value of the first header with one of `names`, and its name as the guest wrote it.
fn header<'a>(request: &Request<'_, 'a>, names: &[&str]) -> Option<(&'a str, &'a [u8])> {
    let named = |name: &str| names.iter().any(|n| n.eq_ignore_ascii_case(name));
    let mut headers = request.headers.iter();
    let header = headers.find(|header| named(header.name))?;
    Some((header.name, header.value.trim_ascii()))
}

/// Returns whether the request has no body. No known request has one.
fn has_no_body(request: &Request<'_, '_>) -> bool {
    let identity = |(_, value): (_, &[u8])| value.eq_ignore_ascii_case(b"identity");
    header(request, &["Transfer-Encoding"]).is_none_or(identity)
        && request
            .headers
            .iter()
            .filter(|header| header.name.eq_ignore_ascii_case("Content-Length"))
            .all(|header| header.value.trim_ascii() == b"0")
}

/// The use of the connection after a request.
#[derive(Clone, Copy)]
struct Connection {
    close: bool,
    /// Whether the response has no body, because the request was HEAD.
    head_only: bool,
}

impl Connection {
    const CLOSE: Self = Self {
        close: true,
        head_only: false,
    };

    /// Returns the use that the request asks for (RFC 9112, section 9.3).
    fn of(request: &Request<'_, '_>) -> Self {
        let asked = |option: &str| {
            header(request, &["Connection"]).is_some_and(|(_, value)| {
                let mut options = value.split(|b| *b == b',').map(<[u8]>::trim_ascii);
                options.any(|o| o.eq_ignore_ascii_case(option.as_bytes()))
            })
        };
        let persists = request.version == Some(1) || asked("keep-alive");
        Self {
            close: !persists || asked("close"),
            head_only: request.method == Some("HEAD"),
        }
    }
}

struct Response {
    status: &'static str,
    content_type: &'static str,
    /// Complete header lines.
    headers: String,
    body: String,
}

impl Response {
    fn text(status: &'static str, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: TEXT,
            headers: String::new(),
            body: body.into(),
        }
    }

    fn bad_request(body: impl Into<String>) -> Self {
        Self::text("400 Bad Request", body)
    }

    fn not_found(path: &str) -> Self {
        Self::text("404 Not Found", format!("Resource not found: {path}."))
    }

    fn write(self, connection: Connection) -> Vec<u8> {
        let Self {
            status,
            content_type,
            headers,
            body,
        } = self;
        let connection_option = match connection.close {
            true => "close",
            false => "keep-alive",
        };
        let length = body.len();
        let mut text = format!(
            "HTTP/1.1 {status}\r\nServer: Bantam\r\nConnection: {connection_option}\r\n{headers}\
             Content-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n"
        );
        if !connection.head_only {
            text += &body;
        }
        text.into_bytes()
    }
}

fn respond(request: &Request<'_, '_>, service: &Service<'_>) -> Response {
    let Some(path) = request.path.and_then(absolute_path) else {
        return Response::bad_request("Invalid URI.");
    };
    match request.method {
        Some("GET") => get(request, path, service),
        Some("PUT") => put(request, path, service),
        _ => Response {
            headers: "Allow: GET, PUT\r\n".into(),
            ..Response::text("405 Method Not Allowed", "Not allowed HTTP method.")
        },
    }
}

/// Returns the path of a target in origin form or absolute form (RFC 9112, section 3.2). Unlike the API, a guest gets no
/// leniency: any other target is an error.
fn absolute_path(target: &str) -> Option<&str> {
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.get(rest.find('/')?..)?,
        None => target,
    };
    path.starts_with('/').then_some(path)
}

/// Returns `path` with each run of slashes reduced to one: a JSON pointer (RFC 6901), except for a slash at its end.
fn without_double_slashes(path: &str) -> String {
    let mut clean = String::with_capacity(path.len());
    for c in path.chars() {
        if c != '/' || !clean.ends_with('/') {
            clean.push(c);
        }
    }
    clean
}

fn get(request: &Request<'_, '_>, path: &str, service: &Service<'_>) -> Response {
    let refusal = match header(request, &TOKEN_HEADERS) {
        Some((_, token)) if service.tokens.accepts(token, service.now) => None,
        Some(_) => {
            service.metrics.rx_invalid_token.increment();
            Some("MMDS token not valid.")
        }
        None => {
            service.metrics.rx_no_token.increment();
            Some(
                "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` header \
                 to specify the session token.",
            )
        }
    };
    // Version 1 only counts missing tokens, so that the operator sees which clients would have to change.
    if let (MmdsVersion::V2, Some(text)) = (service.version, refusal) {
        return Response::text("401 Unauthorized", text);
    }
    let pointer = without_double_slashes(path);
    let pointer = pointer.strip_suffix('/').unwrap_or(&pointer);
    let Some(value) = service.data.pointer(pointer) else {
        return Response::not_found(path);
    };
    let json = header(request, &["Accept"]).is_some_and(|(_, value)| value == JSON.as_bytes());
    let body = match json && !service.imds_compat {
        true => Some(value.to_string()),
        false => as_text(value),
    };
    match body {
        Some(body) => Response {
            // The content type is the requested one even for text, because the text may be JSON.
            content_type: if json { JSON } else { TEXT },
            ..Response::text("200 OK", body)
        },
        None => Response::text(
            "501 Not Implemented",
            "Cannot retrieve value. The value has an unsupported type.",
        ),
    }
}

/// Returns a value in the form of Amazon's service: the keys of an object, or a bare string. Other values have no such form.
fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Object(map) => {
            let line = |(key, value): (&String, &Value)| match value {
                Value::Object(_) => format!("{key}/"),
                _ => key.clone(),
            };
            Some(map.iter().map(line).collect::<Vec<_>>().join("\n"))
        }
        _ => None,
    }
}

fn put(request: &Request<'_, '_>, path: &str, service: &Service<'_>) -> Response {
    // The request comes through a proxy, perhaps from outside the guest.
    if let Some((name, _)) = header(request, &["X-Forwarded-For"]) {
        return Response::bad_request(format!(
            "Invalid header. Reason: Unsupported header name. Key: {name}"
        ));
    }
    if without_double_slashes(path) != TOKEN_PATH {
        return Response::not_found(path);
    }
    let Some((name, value)) = header(request, &TTL_HEADERS) else {
        return Response::bad_request(
            "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or \
             `X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.",
        );
    };
    let value = String::from_utf8_lossy(value);
    let Ok(ttl_seconds) = value.parse() else {
        return Response::bad_request(format!(
            "Invalid header. Reason: Invalid value. Key:{name}; Value:{value}"
        ));
    };
    match service.tokens.issue(ttl_seconds, service.now) {
        Ok(token) => {
            let mut response = Response::text("200 OK", token);
            let _ = write!(response.headers, "{name}: {ttl_seconds}\r\n");
            response
        }
        Err(e) => Response::bad_request(e.to_string()),
    }
}

#[cfg(test)]
#[path = "http_test.rs"]
mod http_test;
