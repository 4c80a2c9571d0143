use super::*;

fn problems(json: &str) -> Vec<String> {
    let vsock: Vsock = serde_json::from_str(json).unwrap();
    let mut problems = Vec::new();
    vsock.check(&mut problems);
    problems.into_iter().map(|problem| problem.key).collect()
}

#[test]
fn values_of_firecracker_clients_are_accepted() {
    for json in [
        r#"{"guest_cid": 3, "uds_path": "v.sock"}"#,
        r#"{"guest_cid": 2, "uds_path": "/run/v.sock", "vsock_id": "old"}"#,
        r#"{"guest_cid": 4294967294, "uds_path": "v", "vsock_id": null}"#,
    ] {
        assert!(problems(json).is_empty(), "{json}");
    }
    for json in [
        r#"{"guest_cid": 3}"#,
        r#"{"guest_cid": 4294967296, "uds_path": "v"}"#,
        r#"{"guest_cid": 3, "uds_path": "v", "port": 1}"#,
    ] {
        assert!(serde_json::from_str::<Vsock>(json).is_err(), "{json}");
    }
}

#[test]
fn reserved_addresses_and_impossible_paths_are_refused() {
    for cid in [0, 1, u32::MAX] {
        let json = format!(r#"{{"guest_cid": {cid}, "uds_path": "v"}}"#);
        assert_eq!(problems(&json), ["vsock.guest_cid"]);
    }
    for (len, refused) in [(0, true), (1, false), (107, false), (108, true)] {
        let json = format!(r#"{{"guest_cid": 3, "uds_path": "{}"}}"#, "v".repeat(len));
        assert_eq!(!problems(&json).is_empty(), refused, "{len} bytes");
    }
}
