//! Clients that misbehave: the guest continues, other clients are answered, and nothing is left when they are gone.
//!
//! Randomness is seeded. `make soak` raises the counts.

use crate::chance::Chance;
use crate::client::{Client, request};
use crate::monitor::{Monitor, PATIENCE, rounds, wait_until};
use serde_json::json;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Longest time between two ticks of the guest that is not a stall: thousands of times the normal time, for a machine with
/// other work.
const LONGEST_GAP: Duration = Duration::from_secs(15);
/// Memory by which the process may grow, for its allocator.
const SLACK_KIB: u64 = 2 << 10;
/// Number of clients that are served at the same time.
const SERVED: usize = 64;

/// Starts a ticking guest with a disk and a console file, in a process that has answered some requests.
fn ticking() -> Monitor {
    let monitor = Monitor::with(|command, _| {
        command.args(["--level", "Error"]);
    });
    let mut client = monitor.client();
    let serial = json!({"serial_out_path": monitor.path("stdout")});
    client.put("/serial", &serial.to_string()).expect(204);
    let drive =
        json!({"drive_id": "a", "is_root_device": false, "path_on_host": monitor.path("disk.img")});
    client.put("/drives/a", &drive.to_string()).expect(204);
    monitor.boot();
    monitor
}

fn ticks(monitor: &Monitor) -> usize {
    monitor.read("stdout").matches("tick ").count()
}

/// Runs `abuse` on a ticking guest twice, because the first run may make the process allocate memory that it keeps.
fn survive(abuse: impl Fn(&Monitor)) {
    let monitor = ticking();
    // Earlier connections may still be closing.
    wait_until("its listener alone", || {
        (monitor.sockets() == 1).then_some(())
    });
    let (descriptors, mut heap) = (monitor.descriptors(), 0);
    let over = AtomicBool::new(false);
    let gap = std::thread::scope(|scope| {
        let watch = scope.spawn(|| longest_gap(&monitor, &over));
        // Also if a check fails, so that the watching thread ends.
        let _end = OnDrop(&over);
        for _ in 0..2 {
            abuse(&monitor);
            wait_until("its descriptors to be closed", || {
                (monitor.descriptors() == descriptors).then_some(())
            });
            let now = monitor.heap_kib();
            assert!(
                heap == 0 || now <= heap + SLACK_KIB,
                "from {heap} KiB to {now} KiB"
            );
            heap = now;
            let instance = monitor.client().get("/").expect(200).json();
            assert_eq!(instance["state"], "Running");
        }
        drop(_end);
        watch.join().unwrap()
    });
    assert!(gap < LONGEST_GAP, "the guest stood still for {gap:?}");
    let before = ticks(&monitor);
    wait_until("further ticks", || (ticks(&monitor) > before).then_some(()));
}

struct OnDrop<'f>(&'f AtomicBool);

impl Drop for OnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Returns the longest time without a new tick until `over` is set.
fn longest_gap(monitor: &Monitor, over: &AtomicBool) -> Duration {
    let (mut last, mut count, mut longest) = (Instant::now(), 0, Duration::ZERO);
    while !over.load(Ordering::Acquire) {
        let now = ticks(monitor);
        longest = longest.max(last.elapsed());
        if now > count {
            (last, count) = (Instant::now(), now);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    longest
}

fn raw(monitor: &Monitor) -> UnixStream {
    monitor.client().stream
}

/// Pieces of requests. No combination pauses or ends the guest.
const PIECES: [&[u8]; 24] = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET /vm/config HTTP/1.0\r\n",
    b"GET /events HTTP/1.1\r\n\r\n",
    b"GET ",
    b"PUT ",
    b"PATCH /drives/a HTTP/1.1\r\n",
    b"DELETE /drives/a HTTP/1.1\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc",
    b"/mmds",
    b" HTTP/1.1\r\n",
    b" HTTP/3.7\r\n",
    b"\r\n\r\n",
    b"\r\n",
    b"\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 51201\r\n",
    b"Content-Length: -1\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Expect: 100-continue\r\n",
    b"Connection: close\r\n",
    b"{\"drive_id\": \"a\"}",
    b"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    b"\x00\xff\xfe\x80",
];

#[test]
fn any_bytes_are_answered() {
    let cases = std::env::var("BANTAM_CASES")
        .ok()
        .and_then(|n| n.parse().ok());
    let cases = cases.unwrap_or(300);
    survive(|monitor| {
        let mut chance = Chance(0x0bad_5eed);
        for case in 0..cases {
            let mut bytes = Vec::new();
            for _ in 0..chance.below(12) {
                match chance.below(4) {
                    0 => bytes.extend(
                        (0..chance.below(40)).map(|_| u8::try_from(chance.below(256)).unwrap()),
                    ),
                    _ => bytes.extend_from_slice(PIECES[chance.below(PIECES.len())]),
                }
            }
            let mut stream = raw(monitor);
            // The monitor may close the connection before it has read everything.
            let _ = stream.write_all(&bytes);
            let _ = stream.shutdown(Shutdown::Write);
            // A client that sends no more is answered, and then disconnected.
            let mut answer = Vec::new();
            if let Err(e) = stream.read_to_end(&mut answer) {
                assert_eq!(
                    e.kind(),
                    std::io::ErrorKind::ConnectionReset,
                    "case {case}: {bytes:?}"
                );
            }
        }
    });
}

#[test]
fn clients_that_send_byte_by_byte_are_answered() {
    survive(|monitor| {
        let text = request(
            "PATCH",
            "/drives/a",
            Some(r#"{"drive_id": "a", "rate_limiter": {}}"#),
        );
        let mut slow: Vec<Client> = (0..20).map(|_| monitor.client()).collect();
        let mut quick = monitor.client();
        for (i, byte) in text.bytes().enumerate() {
            slow.iter_mut().for_each(|client| client.send(&[byte]));
            if i % 16 == 0 {
                quick.get("/").expect(200);
            }
        }
        for client in &mut slow {
            client.answer().expect(204);
        }
    });
}

#[test]
fn fifty_clients_at_once_are_answered() {
    survive(|monitor| {
        std::thread::scope(|scope| {
            for n in 0..50 {
                scope.spawn(move || {
                    let mut client = monitor.client();
                    for _ in 0..rounds(10, 500) {
                        match n % 3 {
                            0 => client.get("/vm/config").expect(200),
                            1 => client
                                .patch("/drives/a", r#"{"drive_id": "a", "rate_limiter": {}}"#)
                                .expect(204),
                            _ => client.get("/nothing").expect(400),
                        };
                    }
                });
            }
        });
    });
}

#[test]
fn a_client_beyond_the_limit_replaces_an_idle_one() {
    survive(|monitor| {
        let mut idle: Vec<Client> = (0..SERVED).map(|_| monitor.client()).collect();
        // The first client is busy: it has sent half a request.
        let (half, rest) = b"GET / HTTP/1.1\r\n\r\n".split_at(5);
        idle[0].send(half);
        // All are accepted, because each gets an answer.
        let since = Instant::now();
        idle.iter_mut()
            .skip(1)
            .for_each(|client| drop(client.get("/").expect(200)));
        let mut next = monitor.client();
        next.send(request("GET", "/version", None).as_bytes());
        next.answer().expect(200);
        // Not before a client was idle for a while.
        assert!(since.elapsed() >= Duration::from_secs(1));
        idle[0].send(rest);
        idle[0].answer().expect(200);
        // Only the client that was idle longest is gone.
        assert!(idle[1].is_over());
        for client in &mut idle[2..] {
            client.get("/").expect(200);
        }
        next.get("/").expect(200);
    });
}

#[test]
fn event_streams_are_not_replaced_and_another_client_waits() {
    survive(|monitor| {
        let mut listeners: Vec<Client> = (0..SERVED).map(|_| monitor.client()).collect();
        for listener in &mut listeners {
            listener.send(b"GET /events HTTP/1.1\r\n\r\n");
            assert_eq!(listener.head().0, 200);
        }
        let mut next = monitor.client();
        next.send(request("GET", "/version", None).as_bytes());
        std::thread::sleep(Duration::from_millis(1500));
        next.stream.set_nonblocking(true).unwrap();
        let waits = next.stream.read(&mut [0; 1]).unwrap_err();
        assert_eq!(waits.kind(), std::io::ErrorKind::WouldBlock);
        next.stream.set_nonblocking(false).unwrap();
        listeners.pop();
        next.answer().expect(200);
    });
}

/// Limits the descriptors of `monitor` to numbers below `limit`.
fn limit_descriptors(monitor: &Monitor, limit: usize) {
    let done = Command::new("prlimit")
        .arg(format!("--pid={}", monitor.child.id()))
        .arg(format!("--nofile={limit}:"))
        .status();
    assert!(done.unwrap().success());
}

/// Returns the CPU time of the API's thread in ticks of 10 ms.
fn api_ticks(monitor: &Monitor) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", monitor.child.id())).unwrap();
    let stats = tasks.map(|task| fs::read_to_string(task.unwrap().path().join("stat")).unwrap());
    let stat = stats.into_iter().find(|stat| stat.contains("(fc_api)"));
    let stat = stat.unwrap();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .unwrap()
        .1
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn without_descriptors_clients_wait_and_the_process_does_not_spin() {
    let monitor = Monitor::start();
    let mut first = monitor.client();
    first.get("/").expect(200);
    let has = |fd: &usize| {
        let path = format!("/proc/{}/fd/{fd}", monitor.child.id());
        fs::symlink_metadata(path).is_ok()
    };
    let free = (0..).find(|fd| !has(fd)).unwrap();
    limit_descriptors(&monitor, free);
    let mut second = monitor.client();
    second.send(request("GET", "/version", None).as_bytes());
    let before = api_ticks(&monitor);
    std::thread::sleep(Duration::from_secs(1));
    let spent = api_ticks(&monitor) - before;
    assert!(spent < 20, "{spent} ticks of 100");
    first.get("/").expect(200);
    // The first client leaves, and the waiting one is served.
    drop(first);
    second.answer().expect(200);
    // No client leaves, but there are descriptors again.
    let mut third = monitor.client();
    third.send(request("GET", "/version", None).as_bytes());
    std::thread::sleep(Duration::from_millis(300));
    limit_descriptors(&monitor, free + 10);
    third.answer().expect(200);
}

#[test]
fn a_hundred_requests_in_one_write_are_answered() {
    survive(|monitor| {
        let all = ["/", "/version", "/nope", "/machine-config", "/balloon"];
        let statuses = [200, 200, 400, 200, 400];
        for _ in 0..rounds(3, 300) {
            let mut client = monitor.client();
            let text: String = (0..100).map(|i| request("GET", all[i % 5], None)).collect();
            client.send(text.as_bytes());
            for i in 0..100 {
                let answer = client.answer();
                assert_eq!(
                    answer.status,
                    statuses[i % 5],
                    "request {i}: {}",
                    answer.body
                );
                crate::openapi::check("GET", all[i % 5], None, &answer);
            }
        }
    });
}

#[test]
fn clients_that_disconnect_in_the_middle_do_no_harm() {
    survive(|monitor| {
        let text = request("PATCH", "/drives/a", Some(r#"{"drive_id": "a"}"#));
        for end in (1..text.len()).step_by(3) {
            raw(monitor).write_all(&text.as_bytes()[..end]).unwrap();
        }
        // More answers than the socket takes: the clients leave in the middle of one.
        let text = request("GET", "/metrics/prometheus", None).repeat(50);
        for _ in 0..rounds(10, 500) {
            let mut stream = raw(monitor);
            stream.write_all(text.as_bytes()).unwrap();
            stream.read_exact(&mut [0; 100]).unwrap();
        }
    });
}

#[test]
fn clients_that_never_read_their_answers_do_no_harm() {
    survive(|monitor| {
        let text = request("GET", "/metrics/prometheus", None).repeat(20);
        let mut deaf: Vec<UnixStream> = (0..10).map(|_| raw(monitor)).collect();
        for stream in &mut deaf {
            stream.set_nonblocking(true).unwrap();
            // Until the process reads no more requests, because the last answer is not taken.
            let deadline = Instant::now() + PATIENCE;
            let (mut taken, mut refused) = (0, 0);
            while refused < 20 {
                assert!(Instant::now() < deadline, "it takes without end");
                match stream.write(text.as_bytes()) {
                    Ok(len) => {
                        taken += len;
                        refused = 0;
                    }
                    Err(e) => {
                        assert_eq!(e.kind(), std::io::ErrorKind::WouldBlock);
                        refused += 1;
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
            }
            assert!(taken < 2 << 20, "{taken} bytes of requests are kept");
        }
        let mut other = monitor.client();
        for _ in 0..20 {
            other.get("/").expect(200);
        }
    });
}

#[test]
fn event_streams_that_are_not_read_are_closed() {
    survive(|monitor| {
        let mut deaf: Vec<Client> = (0..3).map(|_| monitor.client()).collect();
        for listener in &mut deaf {
            listener.send(b"GET /events HTTP/1.1\r\n\r\n");
            assert_eq!(listener.head().0, 200);
        }
        let mut client = monitor.client();
        client.get("/").expect(200);
        let listening = monitor.descriptors();
        let text = request(
            "PATCH",
            "/drives/a",
            Some(r#"{"drive_id": "a", "rate_limiter": {}}"#),
        )
        .repeat(50);
        let deadline = Instant::now() + PATIENCE;
        // An event has about 80 bytes. 256 KiB are kept for each client, besides the socket's own buffer.
        while monitor.descriptors() > listening - deaf.len() {
            assert!(Instant::now() < deadline, "they are kept");
            client.send(text.as_bytes());
            for _ in 0..50 {
                client.answer().expect(204);
            }
        }
        client.get("/").expect(200);
    });
}

#[test]
fn a_body_at_the_limit_is_accepted_and_a_larger_one_skipped() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let body = |len: usize| format!("\"{}\"", "a".repeat(len - 2));
    // The metadata may be too large or not: in both cases the API answers.
    let answer = client.put("/mmds", &body(51200));
    assert!(!answer.body.contains("\"error\""), "{}", answer.body);
    let answer = client.put("/mmds", &body(51201)).expect(400);
    assert!(
        answer
            .body
            .starts_with("{ \"error\": \"Request payload with size 51201"),
        "{}",
        answer.body
    );
    // The rest of the body is not a request.
    client.get("/version").expect(200);

    let arguments = [
        "--http-api-max-payload-size",
        "1000",
        "--mmds-size-limit",
        "500",
    ];
    let monitor = Monitor::with(|command, _| {
        command.args(arguments);
    });
    let mut client = monitor.client();
    client.put("/mmds", &body(1000)).expect(413);
    client.put("/mmds", &body(1001)).expect(400);
    client.put("/mmds", &body(400)).expect(204);
    assert_eq!(client.get("/mmds").body.len(), 400);
}

#[test]
fn a_connection_stays_open_whatever_its_headers_say() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    for text in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET http://localhost/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
        "GET //version/ HTTP/1.1\r\n\r\n",
    ] {
        client.send(text.as_bytes());
        client.answer().expect(200);
    }
    // `100 Continue` has the form that clients expect.
    client.send(b"PUT /mmds HTTP/1.1\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head().0, 100);
    client.send(b"{}");
    client.answer().expect(204);
    // After a refused Expect, the client keeps its body, and the next bytes are a request.
    client.send(b"PUT /mmds HTTP/1.1\r\nContent-Length: 60000\r\nExpect: 100-continue\r\n\r\n");
    client.answer().expect(400);
    client.get("/").expect(200);
    for (text, part) in [
        (
            "GET /version?x=1 HTTP/1.1\r\n\r\n",
            "Invalid request method and/or path: GET version?x=1.",
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            "Invalid HTTP Method: Unsupported HTTP method.",
        ),
        (
            "GET / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}",
            "GET request cannot have a body.",
        ),
    ] {
        client.send(text.as_bytes());
        let answer = client.answer().expect(400);
        assert!(answer.body.contains(part), "{text:?}: {}", answer.body);
    }
    // Rejected requests do not delay the requests after them, unless the framing is unclear.
    let rejected = "POST / HTTP/1.1\r\n\r\n".repeat(3);
    client.send(format!("{rejected}{}", request("GET", "/", None)).as_bytes());
    for status in [400, 400, 400, 200] {
        client.answer().expect(status);
    }
    client.send(b"no request\r\n\r\nGET / HTTP/1.1\r\n\r\n");
    client.answer().expect(400);
    assert!(client.is_over());
}
