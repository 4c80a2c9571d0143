use super::*;
use crate::process::options::DEFAULT_MAX_BODY;
use proptest::collection::vec;
use proptest::prelude::*;

fn whole(text: &str) -> (Request, usize) {
    match find(text.as_bytes(), DEFAULT_MAX_BODY) {
        Found::Request(request, len) => (request, len),
        other => panic!("{text:?}: {other:?}"),
    }
}

fn rejected(text: &str) -> Rejected {
    match find(text.as_bytes(), DEFAULT_MAX_BODY) {
        Found::Rejected(rejected, _) => rejected,
        other => panic!("{text:?}: {other:?}"),
    }
}

const PUT: &str = "PUT /actions HTTP/1.1\r\nContent-Length: 4\r\n\r\nabcd";

#[test]
fn a_request_is_parsed_once_it_is_complete() {
    for end in 0..PUT.len() {
        let found = find(&PUT.as_bytes()[..end], DEFAULT_MAX_BODY);
        assert!(matches!(found, Found::Incomplete { .. }), "{end}");
    }
    let (request, len) = whole(&format!("{PUT}GET"));
    assert_eq!(len, PUT.len());
    assert_eq!(request.method, Method::Put);
    assert_eq!(request.path, "/actions");
    assert_eq!(request.body.as_deref(), Some(&b"abcd"[..]));
}

#[test]
fn paths_and_bodies_are_kept_as_sent() {
    let path = |target: &str| whole(&format!("GET {target} HTTP/1.1\r\n\r\n")).0.path;
    assert_eq!(path("/version"), "/version");
    assert_eq!(path("//version"), "//version");
    assert_eq!(path("http://localhost/version"), "/version");
    assert_eq!(path("http://localhost"), "/");
    assert_eq!(path("/version?x=1"), "/version?x=1");
    let empty = "GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(whole(empty).0.body, None);
    assert_eq!(whole("GET / HTTP/1.0\r\n\r\n").0.path, "/");
}

#[test]
fn unknown_methods_are_rejected_with_their_bodies() {
    let text = "POST /actions HTTP/1.1\r\nContent-Length: 10\r\n\r\nabcd";
    let rejected = rejected(text);
    assert_eq!(
        rejected.error,
        "Invalid HTTP Method: Unsupported HTTP method."
    );
    assert_eq!((rejected.skip, rejected.fatal), (6, false));
}

#[test]
fn a_body_at_the_limit_is_accepted_and_a_larger_one_skipped() {
    let request = |len: usize| {
        let mut bytes = format!("PUT /mmds HTTP/1.1\r\nContent-Length: {len}\r\n\r\n").into_bytes();
        bytes.extend(vec![b'a'; len]);
        bytes
    };
    let at = request(DEFAULT_MAX_BODY);
    assert!(matches!(find(&at, DEFAULT_MAX_BODY), Found::Request(_, n) if n == at.len()));
    let over = request(DEFAULT_MAX_BODY + 1);
    let head = over.len() - DEFAULT_MAX_BODY - 1;
    let Found::Rejected(rejected, taken) = find(&over[..head + 7], DEFAULT_MAX_BODY) else {
        panic!("taken");
    };
    assert!(rejected.error.contains("size 51201"), "{}", rejected.error);
    assert_eq!((taken, rejected.skip), (head + 7, DEFAULT_MAX_BODY + 1 - 7));
}

#[test]
fn requests_with_unclear_framing_end_the_connection() {
    for text in [
        "nonsense\r\n\r\n",
        "GET / HTTP/2.0\r\n\r\n",
        "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: +1\r\n\r\n",
        "PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        "GET / HTTP/1.1\r\nAccept-Encoding: identity;q=0\r\n\r\n",
        "GET / HTTP/1.1\r\nExpect: miracles\r\n\r\n",
    ] {
        assert!(rejected(text).fatal, "{text:?}");
    }
    let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(MAX_HEAD));
    assert!(rejected(&endless).fatal);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert!(rejected(&many).fatal);
}

#[test]
fn a_client_that_expects_continue_gets_it_after_its_headers() {
    let head = "PUT / HTTP/1.1\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n";
    let expects = |text: &str| match find(text.as_bytes(), 10) {
        Found::Incomplete { expects_continue } => expects_continue,
        other => panic!("{other:?}"),
    };
    assert!(expects(head));
    assert!(!expects(&head[..10]));
    assert!(!expects(&format!("{head}a")), "it did not wait");
}

#[test]
fn a_request_rejected_before_continue_skips_no_body() {
    for (line, length) in [
        ("POST / HTTP/1.1", 3),
        ("PUT / HTTP/1.1", DEFAULT_MAX_BODY + 1),
    ] {
        let head = format!("{line}\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n");
        assert_eq!(rejected(&head).skip, 0, "{line}");
        assert_eq!(
            rejected(&format!("{head}a")).skip,
            length - 1,
            "{line}: it did not wait"
        );
    }
}

#[test]
fn any_bytes_are_parsed_without_a_panic() {
    let tokens = prop_oneof![
        any::<Vec<u8>>(),
        Just(b"GET / HTTP/1.1\r\n".to_vec()),
        Just(b"Content-Length: 5\r\n".to_vec()),
        Just(b"Content-Length: 51200\r\n".to_vec()),
        Just(b"Expect: 100-continue\r\n".to_vec()),
        Just(b"\r\n".to_vec()),
        Just(b"PUT http://x/y HTTP/1.0\r\n".to_vec()),
    ];
    crate::testing::properties()
        .run(&vec(tokens, 0..12), |parts| {
            let bytes = parts.concat();
            match find(&bytes, 100) {
                Found::Incomplete { .. } => {}
                Found::Request(request, len) => {
                    prop_assert!(len <= bytes.len() && len > 0);
                    prop_assert!(request.body.is_none_or(|body| body.len() <= 100));
                }
                Found::Rejected(_, len) => prop_assert!(len <= bytes.len() && len > 0),
            }
            Ok(())
        })
        .unwrap();
}
