//! The phases in which each operation is allowed, as `resources/openapi.yaml` documents them, and the stream of events.

use crate::client::{Answer, Client};
use crate::monitor::Monitor;
use crate::openapi::{self, operations};
use crate::schema::problems;
use serde_json::Value;

const BEFORE: &str = "not supported before starting the microVM";
const AFTER: &str = "not supported after starting the microVM";

/// Calls all operations except the endless one. Returns the documented phase and the answer of each.
fn ask_everything(client: &mut Client) -> Vec<(String, &'static str, Answer)> {
    let mut operations = operations();
    operations.retain(|of| of.path != "/events");
    // A failed snapshot load ends the process, so it comes last.
    operations.sort_by_key(|of| of.path == "/snapshot/load");
    let operations = operations.into_iter();
    let answers = operations.map(|of| {
        let path = of.example_path();
        // These would start the guest, or end it.
        let body = match of.path.as_str() {
            "/actions" => Some(r#"{"action_type": "FlushMetrics"}"#.into()),
            _ => of.example(),
        };
        let answer = client.call(&of.method, &path, body.as_deref());
        let when = of.spec["x-when"].as_str().unwrap();
        (format!("{} {path}", of.method), when, answer)
    });
    answers.collect()
}

#[test]
fn operations_are_refused_exactly_outside_their_phases() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let mut answers = ask_everything(&mut client);
    // The examples configure files that do not exist here, so the running guest is in a process of its own.
    let running = Monitor::running();
    let before = answers.len();
    answers.extend(ask_everything(&mut running.client()));

    for (i, (request, when, answer)) in answers.iter().enumerate() {
        let started = i >= before;
        let says = |text: &str| answer.status == 400 && answer.body.contains(text);
        let expected = match (*when, started) {
            ("before", true) => says(AFTER),
            ("after" | "depends", false) => says(BEFORE),
            _ => !says(AFTER) && !says(BEFORE),
        };
        assert!(expected, "{request}, started: {started}: {answer:?}");
        let known = !says("Invalid request method and/or path") && !says("Unrecognized");
        assert!(
            known,
            "{request} is in openapi.yaml and no route: {answer:?}"
        );
    }
}

/// Receives and checks the next event.
fn event(listener: &mut Client) -> Value {
    let event: Value = serde_json::from_str(&listener.line()).unwrap();
    let schema = &openapi::root()["components"]["schemas"]["Event"];
    let found = problems(openapi::root(), schema, &event, "event");
    assert!(found.is_empty(), "{event}: {found:?}");
    event
}

#[test]
fn event_streams_get_all_events_until_the_end() {
    let monitor = Monitor::start();
    let mut client = monitor.client();
    let disk = monitor.path("disk.img");
    let drive =
        format!(r#"{{"drive_id": "a", "is_root_device": false, "path_on_host": "{disk}"}}"#);
    client.put("/drives/a", &drive).expect(204);
    let balloon = r#"{"amount_mib": 0, "deflate_on_oom": false}"#;
    client.put("/balloon", balloon).expect(204);

    let mut listener = monitor.client();
    listener.send(b"GET /events HTTP/1.1\r\n\r\n");
    let (status, headers) = listener.head();
    let headers: Vec<_> = headers
        .iter()
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    let known = [
        ("Server", "Firecracker API"),
        ("Connection", "close"),
        ("Content-Type", "application/x-ndjson"),
    ];
    assert_eq!((status, headers.as_slice()), (200, known.as_slice()));

    monitor.boot();
    for state in ["Paused", "Resumed", "Resumed"] {
        let body = format!(r#"{{"state": "{state}"}}"#);
        client.patch("/vm", &body).expect(204);
    }
    client
        .patch("/drives/a", r#"{"drive_id": "a", "rate_limiter": {}}"#)
        .expect(204);
    // A refused request causes no event.
    client
        .patch("/balloon", r#"{"amount_mib": 5000}"#)
        .expect(400);
    client
        .put("/actions", r#"{"action_type": "SendCtrlAltDel"}"#)
        .expect(204);
    for name in ["started", "paused", "resumed", "drive_changed", "stopped"] {
        let event = event(&mut listener);
        assert_eq!(event["event"], name, "{event}");
        match name {
            "drive_changed" => assert_eq!(event["drive_id"], "a"),
            "stopped" => assert_eq!(event["status"], 0),
            _ => {}
        }
    }
    assert!(listener.is_over());
    assert_eq!(monitor.wait().0, 0);
}
