//! Parses HTTP requests (RFC 9112), as far as clients of a monitor use HTTP.
//!
//! Only complete requests are parsed. A parse error is answered in the form of Firecracker's HTTP server, which differs
//! from that of its API.

use httparse::{EMPTY_HEADER, Request as Head, Status};

/// Limit of the request line and headers in bytes: ten times what any client sends.
pub(super) const MAX_HEAD: usize = 8 << 10;
/// Limit of the number of headers.
const MAX_HEADERS: usize = 64;

/// A request method that the API knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET.
    Get,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

impl Method {
    /// Returns the method's name in a request.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// A complete request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path. An absolute URI is reduced to its path.
    pub path: String,
    /// The body; `None` without Content-Length.
    pub body: Option<Vec<u8>>,
}

/// A request that is answered without the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// The reason.
    pub error: String,
    /// Bytes of the request that are still to come and must be skipped. Zero for a body that the client sends only after
    /// `100 Continue`.
    pub skip: usize,
    /// Whether the start of the next request is unknown: the connection must end.
    pub fatal: bool,
}

/// The parse result of the first bytes of the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The request is incomplete.
    Incomplete {
        /// Whether the client waits for `100 Continue`.
        expects_continue: bool,
    },
    /// A request and its length in bytes.
    Request(Request, usize),
    /// A rejected request and its length in bytes.
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

/// The framing that the headers describe.
#[derive(Default)]
struct Framing {
    length: Option<usize>,
    expects_continue: bool,
}

/// Parses the start of `bytes`. A body may have at most `max_body` bytes.
pub fn find(bytes: &[u8], max_body: usize) -> Found {
    let mut headers = [EMPTY_HEADER; MAX_HEADERS];
    let mut head = Head::new(&mut headers);
    let head_len = match head.parse(bytes) {
        Ok(Status::Complete(len)) if len <= MAX_HEAD => len,
        Ok(Status::Partial) if bytes.len() <= MAX_HEAD => {
            return Found::Incomplete {
                expects_continue: false,
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
        let kept_back = framing.expects_continue && there == 0;
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
            expects_continue: framing.expects_continue && there == 0,
        };
    };
    let request = Request {
        method,
        path: path(head.path.unwrap_or_default()).to_owned(),
        // A body of length 0 counts as absent.
        body: framing.length.filter(|len| *len > 0).map(|_| body.to_vec()),
    };
    Found::Request(request, head_len + length)
}

/// Returns the path of a request target (RFC 9112, 3.2). As in Firecracker, a URI without a path means `/`.
fn path(target: &str) -> &str {
    let after_scheme = target.strip_prefix("http://");
    after_scheme.map_or(target, |rest| {
        rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
    })
}

/// Parses the headers that frame a request. `Connection` and HTTP/1.0 are ignored: Firecracker keeps every connection open,
/// and some clients continue to use a connection that they asked to be closed.
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
                // Two different lengths would let a request be smuggled past a proxy.
                if framing.length.is_some_and(|before| before != length) {
                    return Err("Invalid header: Content-Length is there twice.".into());
                }
                framing.length = Some(length);
            }
            "transfer-encoding" => {
                return Err("Unsupported header: Transfer-Encoding: send Content-Length.".into());
            }
            "expect" if value.eq_ignore_ascii_case("100-continue") => {
                framing.expects_continue = true
            }
            "expect" => return Err(format!("Unsupported header: Expect: {value}.")),
            "accept-encoding" if refuses_identity(value) => {
                return Err(format!("Unsupported header: Accept-Encoding: {value}."));
            }
            _ => {}
        }
    }
    Ok(framing)
}

/// Returns whether the client refuses an unencoded answer (RFC 9110, 12.5.3).
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
