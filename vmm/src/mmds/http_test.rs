use super::*;
use devices::util::metrics::MetricSet as _;
use serde_json::json;

const NOW: Duration = Duration::from_secs(77);

struct Host {
    version: MmdsVersion,
    imds_compat: bool,
    data: Value,
    tokens: TokenAuthority,
    metrics: MmdsMetrics,
}

impl Host {
    fn new(version: MmdsVersion) -> Self {
        let data = json!({"latest": {
            "meta-data": {"ami-id": "ami-1", "empty": "", "list": ["x", 2], "dir": {"k": "v"}},
            "limits": {"cpu": 512, "on": true, "none": null},
            "a~b": "tilde",
        }});
        Self {
            version,
            imds_compat: false,
            data,
            tokens: TokenAuthority::new(NOW).unwrap(),
            metrics: MmdsMetrics::default(),
        }
    }

    fn answer(&self, bytes: &[u8]) -> Option<Answer> {
        let service = Service {
            version: self.version,
            imds_compat: self.imds_compat,
            data: &self.data,
            tokens: &self.tokens,
            now: NOW,
            metrics: &self.metrics,
        };
        answer(bytes, &service)
    }

    /// Returns head and body of the response to a request, which must leave the connection open.
    fn ask(&self, first_line: &str, headers: &str) -> (String, String) {
        let request = format!("{first_line} HTTP/1.1\r\nHost: 169.254.169.254\r\n{headers}\r\n");
        let answer = self.answer(request.as_bytes()).unwrap();
        assert_eq!((answer.used, answer.close), (request.len(), false));
        split(answer.response)
    }

    fn get(&self, path: &str, headers: &str) -> (String, String) {
        let (head, body) = self.ask(&format!("GET {path}"), headers);
        let status = head.split("\r\n").next().unwrap()[9..12].to_owned();
        (status, body)
    }

    /// Returns status and body.
    fn put(&self, path: &str, headers: &str) -> (String, String) {
        let (head, body) = self.ask(&format!("PUT {path}"), headers);
        (head[9..12].to_owned(), body)
    }

    fn counted(&self, metric: &str) -> u64 {
        let mut count = None;
        self.metrics.visit(&mut |name, value| {
            if let (true, devices::util::metrics::Value::Count(n)) = (name == metric, value) {
                count = Some(n);
            }
        });
        count.unwrap()
    }
}

fn split(response: Vec<u8>) -> (String, String) {
    let text = String::from_utf8(response).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let length = format!("\r\nContent-Length: {}", body.len());
    assert!(head.ends_with(&length), "{head}");
    (head.to_owned(), body.to_owned())
}

fn pair(status: &str, body: &str) -> (String, String) {
    (status.to_owned(), body.to_owned())
}

const JSON_PLEASE: &str = "Accept: application/json\r\n";

#[test]
fn a_path_selects_a_value() {
    let host = Host::new(MmdsVersion::V1);
    for (path, status, text) in [
        ("/", "200", "latest/"),
        ("/latest", "200", "a~b\nlimits/\nmeta-data/"),
        ("/latest/meta-data/", "200", "ami-id\ndir/\nempty\nlist"),
        ("//latest///meta-data//ami-id//", "200", "ami-1"),
        (
            "http://169.254.169.254/latest/meta-data/ami-id",
            "200",
            "ami-1",
        ),
        ("/latest/meta-data/empty", "200", ""),
        ("/latest/meta-data/list/0", "200", "x"),
        ("/latest/a~0b", "200", "tilde"),
        ("/nope/", "404", "Resource not found: /nope/."),
        (
            "/latest/meta-data/list/9",
            "404",
            "Resource not found: /latest/meta-data/list/9.",
        ),
        (
            "/latest/limits/cpu/x",
            "404",
            "Resource not found: /latest/limits/cpu/x.",
        ),
        ("http://169.254.169.254", "400", "Invalid URI."),
        ("latest", "400", "Invalid URI."),
    ] {
        assert_eq!(host.get(path, ""), pair(status, text), "{path}");
    }
    for path in ["cpu", "on", "none"] {
        let text = "Cannot retrieve value. The value has an unsupported type.";
        let path = format!("/latest/limits/{path}");
        assert_eq!(host.get(&path, ""), pair("501", text));
    }
}

#[test]
fn json_needs_an_accept_header() {
    let mut host = Host::new(MmdsVersion::V1);
    let path = "/latest/limits";
    let text = r#"{"cpu":512,"none":null,"on":true}"#;
    assert_eq!(host.get(path, JSON_PLEASE), pair("200", text));
    assert_eq!(
        host.get(path, "accept:  application/json \r\n"),
        pair("200", text)
    );
    let (head, _) = host.ask("GET /latest", JSON_PLEASE);
    assert!(head.contains("\r\nContent-Type: application/json\r\n"));
    for other in ["*/*", "plain/text", "text/plain, application/json"] {
        let accept = format!("Accept: {other}\r\n");
        assert_eq!(host.get(path, &accept), pair("200", "cpu\nnone\non"));
        let (head, _) = host.ask("GET /latest", &accept);
        assert!(head.contains("\r\nContent-Type: text/plain\r\n"));
    }
    let ami = "/latest/meta-data/ami-id";
    assert_eq!(host.get(ami, JSON_PLEASE), pair("200", "\"ami-1\""));
    host.imds_compat = true;
    assert_eq!(host.get(ami, JSON_PLEASE), pair("200", "ami-1"));
    assert_eq!(host.get("/latest/limits/cpu", JSON_PLEASE).0, "501");
}

#[test]
fn without_data_the_value_is_null() {
    let mut host = Host::new(MmdsVersion::V1);
    host.data = Value::Null;
    assert_eq!(host.get("/", JSON_PLEASE), pair("200", "null"));
    assert_eq!(host.get("/", "").0, "501");
    assert_eq!(host.get("/latest", "").0, "404");
}

#[test]
fn version_2_requires_a_token() {
    let host = Host::new(MmdsVersion::V2);
    let path = "/latest/meta-data/ami-id";
    let missing = "No MMDS token provided. Use `X-metadata-token` or `X-aws-ec2-metadata-token` \
                   header to specify the session token.";
    assert_eq!(host.get(path, ""), pair("401", missing));
    let invalid = "MMDS token not valid.";
    assert_eq!(
        host.get(path, "X-metadata-token: foo\r\n"),
        pair("401", invalid)
    );
    assert_eq!(
        (
            host.counted("rx_no_token"),
            host.counted("rx_invalid_token")
        ),
        (1, 1)
    );

    for prefix in ["X-metadata-token", "x-aws-ec2-metadata-TOKEN"] {
        let headers = format!("{prefix}-ttl-seconds: 60\r\n");
        let (head, token) = host.ask("PUT //latest/api//token", &headers);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(
            head.contains(&format!("\r\n{prefix}-ttl-seconds: 60\r\n")),
            "{head}"
        );
        for name in TOKEN_HEADERS {
            let headers = format!("{name}: {token}\r\n");
            assert_eq!(host.get(path, &headers), pair("200", "ami-1"));
        }
    }
    assert_eq!(
        (
            host.counted("rx_no_token"),
            host.counted("rx_invalid_token")
        ),
        (1, 1)
    );
}

#[test]
fn version_1_only_counts_tokens() {
    let host = Host::new(MmdsVersion::V1);
    let path = "/latest/meta-data/ami-id";
    assert_eq!(host.get(path, "").0, "200");
    assert_eq!(host.get(path, "X-metadata-token: foo\r\n").0, "200");
    let (status, token) = host.put(TOKEN_PATH, "X-metadata-token-ttl-seconds: 1\r\n");
    assert_eq!(status, "200");
    assert_eq!(
        host.get(path, &format!("X-metadata-token: {token}\r\n")).0,
        "200"
    );
    assert_eq!(
        (
            host.counted("rx_no_token"),
            host.counted("rx_invalid_token")
        ),
        (1, 1)
    );
}

#[test]
fn token_request_errors_are_reported() {
    let host = Host::new(MmdsVersion::V2);
    let ttl = |ttl: &str| format!("X-metadata-token-ttl-seconds: {ttl}\r\n");
    for (path, headers, status, text) in [
        (
            "/",
            "x-Forwarded-For: foo\r\n".into(),
            "400",
            "Invalid header. Reason: Unsupported header name. Key: x-Forwarded-For",
        ),
        (
            "/latest/api/toke",
            ttl("60"),
            "404",
            "Resource not found: /latest/api/toke.",
        ),
        (
            TOKEN_PATH,
            String::new(),
            "400",
            "Token time to live value not found. Use `X-metadata-token-ttl-seconds` or \
             `X-aws-ec2-metadata-token-ttl-seconds` header to specify the token's lifetime.",
        ),
        (
            TOKEN_PATH,
            ttl("0"),
            "400",
            "Invalid time to live value provided for token: 0. Please provide a value between 1 and 21600.",
        ),
        (
            TOKEN_PATH,
            ttl("21601"),
            "400",
            "Invalid time to live value provided for token: 21601. Please provide a value between 1 and 21600.",
        ),
        (
            TOKEN_PATH,
            ttl("-1"),
            "400",
            "Invalid header. Reason: Invalid value. Key:X-metadata-token-ttl-seconds; Value:-1",
        ),
    ] {
        assert_eq!(host.put(path, &headers), pair(status, text));
    }
    let both = format!("{}X-Forwarded-For: foo\r\n", ttl("60"));
    assert_eq!(host.put(TOKEN_PATH, &both).0, "400");
}

#[test]
fn other_methods_get_the_list_of_allowed_ones() {
    let host = Host::new(MmdsVersion::V2);
    for method in ["POST", "PATCH", "DELETE", "OPTIONS", "BREW"] {
        let (head, body) = host.ask(&format!("{method} /"), "");
        assert!(
            head.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
            "{head}"
        );
        assert!(head.contains("\r\nAllow: GET, PUT\r\n"), "{head}");
        assert_eq!(body, "Not allowed HTTP method.");
    }
    let head = host.answer(b"HEAD / HTTP/1.1\r\n\r\n").unwrap().response;
    assert!(
        head.ends_with(b"\r\n\r\n"),
        "a response to HEAD has no body"
    );
}

#[test]
fn invalid_requests_end_the_connection() {
    let host = Host::new(MmdsVersion::V1);
    let long = [
        b"GET / HTTP/1.1\r\n",
        "A: b\r\n".repeat(65).as_bytes(),
        b"\r\n",
    ]
    .concat();
    for (bytes, status) in [
        (&b"\x16\x03\x01\x02\x00\x01"[..], "400 Bad Request"),
        (b"GET / HTTP/1.1\r\nno header\r\n\r\n", "400 Bad Request"),
        (
            b"GET / HTTP/1.1\r\nContent-Length: 100\r\n\r\nsome body",
            "400 Bad Request",
        ),
        (
            b"PUT / HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 9\r\n\r\n",
            "400 Bad Request",
        ),
        (
            b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "400 Bad Request",
        ),
        (b"GET / HTTP/2.0\r\n\r\n", "501 Not Implemented"),
        (&long, "400 Bad Request"),
    ] {
        let answer = host.answer(bytes).unwrap();
        assert!(answer.close);
        assert_eq!(answer.used, bytes.len());
        let (head, _) = split(answer.response);
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{head}"
        );
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
    }
    assert_eq!(
        split(host.answer(&[0]).unwrap().response).1,
        "Invalid request."
    );
}

#[test]
fn an_incomplete_request_waits_until_it_is_too_long() {
    let host = Host::new(MmdsVersion::V1);
    let request = b"GET /latest/meta-data/ami-id HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    for len in 0..request.len() {
        assert_eq!(host.answer(&request[..len]), None, "{len}");
    }
    let two = [&request[..], b"GET /"].concat();
    let answer = host.answer(&two).unwrap();
    assert_eq!((answer.used, answer.close), (request.len(), false));

    let mut long = b"GET / HTTP/1.1\r\nA: ".to_vec();
    long.resize(MAX_REQUEST - 1, b'a');
    assert_eq!(host.answer(&long), None);
    long.push(b'a');
    assert!(host.answer(&long).unwrap().close);
}

#[test]
fn the_client_decides_whether_the_connection_persists() {
    let host = Host::new(MmdsVersion::V1);
    for (request, close) in [
        ("GET / HTTP/1.1\r\n\r\n", false),
        ("GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n", true),
        ("GET / HTTP/1.0\r\n\r\n", true),
        ("GET / HTTP/1.0\r\nconnection: Keep-Alive\r\n\r\n", false),
    ] {
        let answer = host.answer(request.as_bytes()).unwrap();
        assert_eq!(answer.close, close, "{request}");
        let (head, _) = split(answer.response);
        let option = if close { "close" } else { "keep-alive" };
        assert!(head.contains(&format!("\r\nConnection: {option}\r\n")));
    }
}
