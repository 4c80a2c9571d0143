use super::*;

fn request(method: Method, path: &str, body: &str) -> Request {
    Request {
        method,
        path: path.into(),
        body: Some(body.as_bytes().to_vec()).filter(|body| !body.is_empty()),
    }
}

fn refused(method: Method, path: &str, body: &str) -> String {
    match parse(&request(method, path, body)) {
        Err(e) => e.to_string(),
        Ok((parsed, _)) => panic!("{path}: {parsed:?}"),
    }
}

fn command(method: Method, path: &str, body: &str) -> Command {
    match parse(&request(method, path, body)) {
        Ok((Parsed::Command(command), _)) => command,
        other => panic!("{path}: {other:?}"),
    }
}

use Method::{Delete, Get, Patch, Put};

#[test]
fn paths_map_to_their_commands() {
    assert!(matches!(
        command(Get, "/", ""),
        Command::Query(Query::Instance)
    ));
    assert!(matches!(
        command(Get, "//version/", ""),
        Command::Query(Query::Version)
    ));
    assert!(matches!(
        command(Get, "/vm/config", ""),
        Command::Query(Query::Vm)
    ));
    assert!(matches!(
        command(Get, "/balloon/hinting/status", ""),
        Command::Query(Query::HintingStatus)
    ));
    assert!(matches!(
        command(Put, "/actions", r#"{"action_type":"InstanceStart"}"#),
        Command::Start
    ));
    assert!(matches!(
        command(Patch, "/vm", r#"{"state":"Paused"}"#),
        Command::Operate(Operate::Pause)
    ));
    assert!(matches!(
        command(Patch, "/balloon/hinting/start", ""),
        Command::Operate(Operate::HintingStart(HintingStart {
            acknowledge_on_stop: true
        }))
    ));
    assert!(matches!(
        command(Delete, "/drives/a", ""),
        Command::Operate(Operate::Unplug(Pluggable::Drive, id)) if id == "a"
    ));
    // The rest of the path is ignored, as clients expect.
    let vsock = r#"{"guest_cid":3,"uds_path":"v"}"#;
    assert!(matches!(
        command(Put, "/vsock/vsock0", vsock),
        Command::Configure(_)
    ));
    assert!(matches!(
        parse(&request(Get, "/events", "")),
        Ok((Parsed::Events, _))
    ));
}

#[test]
fn requests_without_a_route_get_firecracker_s_texts() {
    let path = |m: &str, p: &str| format!("Invalid request method and/or path: {m} {p}.");
    assert_eq!(refused(Get, "/nope", ""), path("GET", "nope"));
    assert_eq!(refused(Put, "/nope", "{}"), path("PUT", "nope"));
    assert_eq!(refused(Delete, "/nope", ""), path("DELETE", "nope"));
    assert_eq!(refused(Get, "/version?x=1", ""), path("GET", "version?x=1"));
    assert_eq!(refused(Get, "/vm", ""), path("GET", "vm"));
    assert_eq!(
        refused(Put, "/snapshot/foo", "{}"),
        path("PUT", "/snapshot/foo")
    );
    assert_eq!(refused(Put, "/nope", ""), "Empty PUT request.");
    assert_eq!(refused(Patch, "/vm", ""), "Empty PATCH request.");
    assert_eq!(
        refused(Patch, "/machine-config", "{}"),
        "Empty PATCH request."
    );
    assert_eq!(refused(Get, "/", "{}"), "GET request cannot have a body.");
    assert_eq!(
        refused(Put, "/snapshot", "{}"),
        "Missing snapshot operation type."
    );
    assert_eq!(refused(Put, "/drives", "{}"), "The ID cannot be empty.");
    assert!(refused(Put, "/drives/bad-id", "{}").contains("alphanumeric"));
    let other = r#"{"drive_id":"b","is_root_device":false,"path_on_host":"/x"}"#;
    assert!(refused(Put, "/drives/a", other).contains("does not match"));
    assert!(refused(Put, "/actions", "{bad").contains("line 1"));
    assert!(refused(Put, "/cpu-config", r#"{"bogus":1}"#).contains("`bogus`"));
    assert!(
        refused(Put, "/snapshot/load", r#"{"snapshot_path":"/s"}"#)
            .contains("missing field: either")
    );
}

#[test]
fn deprecated_fields_are_reported() {
    for (method, path, body, count) in [
        (
            Put,
            "/vsock",
            r#"{"guest_cid":3,"uds_path":"v","vsock_id":"1"}"#,
            1,
        ),
        (Put, "/vsock", r#"{"guest_cid":3,"uds_path":"v"}"#, 0),
        (Patch, "/machine-config", r#"{"cpu_template":"None"}"#, 1),
        (Put, "/mmds/config", r#"{"network_interfaces":["a"]}"#, 1),
        (Put, "/mmds", r#"{"version":"V1"}"#, 0),
        (
            Put,
            "/snapshot/create",
            r#"{"snapshot_path":"s","mem_file_path":"m","version":"1.0.0"}"#,
            1,
        ),
    ] {
        let (_, deprecated) = parse(&request(method, path, body)).unwrap();
        assert_eq!(deprecated.len(), count, "{path} {body}");
    }
}

/// Returns the operations of resources/openapi.yaml, as method and path.
fn documented() -> Vec<(Method, String)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../resources/openapi.yaml");
    let text = std::fs::read_to_string(path).unwrap();
    let file: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
    let mut found = Vec::new();
    for (path, item) in file["paths"].as_object().unwrap() {
        for (name, method) in [
            ("get", Get),
            ("put", Put),
            ("patch", Patch),
            ("delete", Delete),
        ] {
            if item.get(name).is_some() {
                found.push((method, path.clone()));
            }
        }
    }
    found
}

#[test]
fn openapi_and_routes_name_the_same_operations() {
    let documented = documented();
    for route in SECTION_ROUTES.iter().chain(ROUTES) {
        let is_its = |(method, path): &(Method, String)| {
            let mut parts = path.split('/').skip(1);
            *method == route.method
                && parts.next() == Some(route.first)
                && route
                    .second
                    .is_none_or(|second| parts.next() == Some(second))
        };
        let there = documented.iter().any(is_its);
        assert!(there, "{:?} /{}", route.method, route.first);
    }
    for (method, path) in documented {
        let path = path.replace(['{', '}'], "");
        let body = if method == Get || method == Delete {
            ""
        } else {
            "{}"
        };
        let unknown = match parse(&request(method, &path, body)) {
            Err(RouteError::Path { .. } | RouteError::Tail(_)) => true,
            Err(_) | Ok(_) => false,
        };
        assert!(!unknown, "{method:?} {path}");
    }
}
