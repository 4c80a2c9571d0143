use super::*;
use serde_json::{Value, from_value, json};

#[test]
fn overrides_are_keys_of_the_request_and_unknown_keys_are_refused() {
    let own = json!({
        "network_overrides": [{"iface_id": "eth0", "host_dev_name": "tap7"}],
        "vsock_override": {"uds_path": "/v.sock"},
        "drive_overrides": [{"drive_id": "root", "path_on_host": "/i"}],
    });
    let with = |key: &str, value: Value| {
        let mut all = own.clone();
        all[key] = value;
        all
    };
    let load = with("snapshot_path", "/s".into());
    let load: SnapshotLoad = from_value(load).unwrap();
    let child: ForkChild = from_value(with("socket", "/f".into())).unwrap();
    assert_eq!(load.own, child.own);
    assert_eq!(json!(load.own), own);

    let mut load = with("snapshot_path", "/s".into());
    load["network_override"] = json!([]);
    let mut child = with("socket", "/f".into());
    child["images"] = json!([]);
    let nested = json!([{"drive_id": "root", "path_on_host": "/i", "x": 1}]);
    for (refused, key) in [
        (
            from_value::<SnapshotLoad>(load).map(drop),
            "network_override",
        ),
        (from_value::<ForkChild>(child).map(drop), "images"),
        (
            from_value::<SnapshotLoad>(json!({"snapshot_path": "/s", "drive_overrides": nested}))
                .map(drop),
            "x",
        ),
    ] {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains(&format!("unknown field `{key}`")), "{text}");
    }
}
