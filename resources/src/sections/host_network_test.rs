use super::*;

fn problems(json: &str) -> Vec<String> {
    let interface: NetworkInterface = serde_json::from_str(json).unwrap();
    let mut problems = Vec::new();
    let host = interface.host.clone().unwrap();
    host.check("n.host", &interface, &mut problems);
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn errors_name_the_missing_key_that_another_needs() {
    let found = problems(
        r#"{"iface_id": "a", "host_dev_name": "t", "host": {"nat": true, "isolated": true, "spoof_guard": true,
            "addresses": ["10.0.0.0/24", "10.0.0.255/24", "::1/128"]}}"#,
    );
    for key in [
        "n.host.nat: needs the key `bridge`",
        "n.host.nat: needs `bridge_addresses`",
        "n.host.isolated",
        "n.host.spoof_guard: needs the key `bridge`",
        "n.host.spoof_guard: needs the key `guest_mac`",
        "n.host.addresses[0]: 10.0.0.0/24 is the address of a network",
        "n.host.addresses[1]",
        "n.host.addresses[2]",
    ] {
        assert!(found.iter().any(|p| p.starts_with(key)), "{key}: {found:?}");
    }
}

#[test]
fn the_bridge_is_the_default_gateway_of_its_networks() {
    let json = r#"{"iface_id": "a", "host_dev_name": "t", "bridge": "br0", "host": {
        "bridge_addresses": ["10.88.0.1/24", "192.168.0.1/24", "fd00::1/64"],
        "addresses": ["10.88.0.5/24", "fd00::5/64"]}}"#;
    assert_eq!(problems(json), Vec::<String>::new());
    let mut host = serde_json::from_str::<NetworkInterface>(json)
        .unwrap()
        .host
        .unwrap();
    let shown: Vec<_> = host.gateways().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.88.0.1", "fd00::1"]);
    host.gateways = vec!["10.88.0.254".parse().unwrap()];
    assert_eq!(host.gateways().len(), 1);
}
