//! Requests out of bytes (RFC 9112), as much of it as clients of a monitor use.
//!
//! A request is taken only when all of it is there. What cannot be parsed is answered in the form
//! in which the compatible monitor's server answers it, which is not that of its API.

use httparse::{EMPTY_HEADER, Request as Head, Status};

/// Most bytes of the request line and headers: ten times what any client sends.
pub(super) const MAX_HEAD: usize = 8 << 10;
/// Most headers.
const MAX_HEADERS: usize = 64;

/// A method that the API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Asks.
    Get,
    /// Puts in place.
    Put,
    /// Changes.
    Patch,
    /// Takes away.
    Delete,
}

impl Method {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A whole request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub method: Method,
    /// With what; an absolute URI is cut down to its path.
    pub path: String,
    /// `None` without Content-Length.
    pub body: Option<Vec<u8>>,
}

/// A request that is answered without asking the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Why.
    pub error: String,
    /// Bytes that still belong to it and are thrown away as they come; none of a body that the client keeps
    /// back until it has leave to send it.
    pub skip: usize,
    /// What follows cannot be told from it: the connection ends.
    pub fatal: bool,
}

/// What is at the start of the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Not a whole request yet.
    Incomplete {
        /// The client waits for leave to send the body.
        expects_leave: bool,
    },
    /// A request of so many bytes.
    Request(Request, usize),
    /// None, of so many bytes.
    Rejected(Rejected, usize),
}

fn fatal(error: impl Into<String>, bytes: usize) -> Found {
    let rejected = Rejected {
        error: error.into(),
        skip: 0,
        fatal: true,
    };
    Found::Rejected(rejected, bytes)
}

/// What the headers say.
#[derive(Default)]
struct Framing {
    length: Option<usize>,
    expects_leave: bool,
}

/// Looks at the start of `bytes`; a body has at most `max_body` bytes.
pub fn find(bytes: &[u8], max_body: usize) -> Found {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut head = Head::new(&mut headers);
    let head_len = match head.parse(bytes) {
        Ok(Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(Status::Partial) if bytes.len() <= MAX_HEAD => {
            return Found::Incomplete {
                expects_leave: false,
            };
        }
        Ok(_) => return fatal("Request line and headers are too long.", bytes.len()),
        Err(httparse::Error::Version) => {
            return fatal(
                "Invalid HTTP Version: Unsupported HTTP version.",
                bytes.len(),
            );
        }
        Err(e) => return fatal(format!("Invalid request: {e}."), bytes.len()),
    };
    let framing = match framing(head.headers) {
        Ok(framing) => framing,
        Err(error) => return fatal(error, bytes.len()),
    };
    let length = framing.length.unwrap_or(0);
    let there = bytes.len() - head_len;
    let reject = |error: String| {
        let kept_back = framing.expects_leave && there == 0;
        let rejected = Rejected {
            error,
            skip: if kept_back {
                0
            } else {
                length - length.min(there)
            },
            fatal: false,
        };
        Found::Rejected(rejected, head_len + length.min(there))
    };
    let method = match head.method.unwrap_or_default() {
        "GET" => Method::Get,
        "PUT" => Method::Put,
        "PATCH" => Method::Patch,
        "DELETE" => Method::Delete,
        _ => return reject("Invalid HTTP Method: Unsupported HTTP method.".into()),
    };
    if length > max_body {
        return reject(format!(
            "Request payload with size {length} is larger than the limit of {max_body} allowed by server."
        ));
    }
    let Some(body) = bytes.get(head_len..head_len.saturating_add(length)) else {
        return Found::Incomplete {
            expects_leave: framing.expects_leave && there == 0,
        };
    };
    let request = Request {
        method,
        path: path(head.path.unwrap_or_default()).to_owned(),
        // A length of 0 is as none.
        body: framing.length.filter(|len| *len > 0).map(|_| body.to_vec()),
    };
    Found::Request(request, head_len + length)
}

/// The path of a request target (RFC 9112, 3.2).
fn path(target: &str) -> &str {
    let after_scheme = target.strip_prefix("http://");
    after_scheme.map_or(target, |rest| {
        rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
    })
}

/// `Connection` says nothing here, nor does HTTP/1.0: the compatible server keeps every connection open, and has
/// clients that go on using one which they asked it to close.
fn framing(headers: &[httparse::Header<'_>]) -> Result<Framing, String> {
    let mut framing = Framing::default();
    for header in headers {
        let name = header.name.to_ascii_lowercase();
        let value = std::str::from_utf8(header.value)
            .map_err(|_| format!("Invalid header: {name} is not UTF-8."))?
            .trim();
        match name.as_str() {
            "content-length" => {
                let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
                let length = value.parse().ok().filter(|_| digits);
                let length = length.ok_or_else(|| {
                    format!("Invalid header: Content-Length: {value} is not a number.")
                })?;
                // Two that differ smuggle a request past whoever believes the other.
                if framing.length.is_some_and(|before| before != length) {
                    return Err("Invalid header: Content-Length is there twice.".into());
                }
                framing.length = Some(length);
            }
            "transfer-encoding" => {
                return Err("Unsupported header: Transfer-Encoding: send Content-Length.".into());
            }
            "expect" if value.eq_ignore_ascii_case("100-continue") => framing.expects_leave = true,
            "expect" => return Err(format!("Unsupported header: Expect: {value}.")),
            "accept-encoding" if refuses_identity(value) => {
                return Err(format!("Unsupported header: Accept-Encoding: {value}."));
            }
            _ => {}
        }
    }
    Ok(framing)
}

/// Whether the answer may not be sent as it is (RFC 9110, 12.5.3).
fn refuses_identity(value: &str) -> bool {
    value.split(',').any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let weight = parts.find_map(|p| p.strip_prefix("q=")).unwrap_or("1");
        (coding == "identity" || coding == "*") && weight.parse() == Ok(0.0)
    })
}

#[cfg(test)]
#[path = "http_test.rs"]
mod http_test;
