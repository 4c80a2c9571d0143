use super::*;

fn parse(json: &str) -> Result<MmdsConfig, serde_json::Error> {
    serde_json::from_str(json)
}

fn with_address(address: &str) -> MmdsConfig {
    parse(&format!(
        r#"{{"network_interfaces": ["e0"], "ipv4_address": "{address}"}}"#
    ))
    .unwrap()
}

#[test]
fn absent_and_null_keys_have_defaults() {
    let shortest = parse(r#"{"network_interfaces": ["e0"]}"#).unwrap();
    assert_eq!(shortest.version, MmdsVersion::V1);
    assert_eq!(shortest.address(), Ipv4Addr::new(169, 254, 169, 254));
    assert!(!shortest.imds_compat);
    let nulls = r#"{"network_interfaces": ["e0"], "version": null, "ipv4_address": null, "imds_compat": null}"#;
    assert_eq!(parse(nulls).unwrap(), shortest);
}

#[test]
fn a_section_is_serialized_as_clients_expect_it() {
    let config = parse(r#"{"network_interfaces": ["e0"], "version": "V2"}"#).unwrap();
    assert_eq!(
        serde_json::to_value(&config).unwrap(),
        serde_json::json!({
            "version": "V2", "network_interfaces": ["e0"], "ipv4_address": null, "imds_compat": false
        })
    );
}

#[test]
fn invalid_sections_are_refused() {
    for json in [
        r"{}",
        r#"{"network_interfaces": ["e0"], "versions": "V2"}"#,
        r#"{"network_interfaces": ["e0"], "version": "V3"}"#,
        r#"{"network_interfaces": ["e0"], "ipv4_address": ""}"#,
        r#"{"network_interfaces": "e0"}"#,
    ] {
        assert!(parse(json).is_err(), "{json}");
    }
}

#[test]
fn the_address_must_be_link_local() {
    for (address, fine) in [
        ("169.254.0.255", false),
        ("169.254.1.0", true),
        ("169.254.254.255", true),
        ("169.254.255.0", false),
        ("169.253.1.1", false),
        ("10.0.0.1", false),
    ] {
        let checked = with_address(address).validate(&["e0"]);
        assert_eq!(checked.is_ok(), fine, "{address}");
        if let Err(error) = checked {
            assert_eq!(
                error.to_string(),
                "The MMDS IPv4 address is not link local."
            );
        }
    }
}

#[test]
fn the_interfaces_must_exist_and_not_be_empty() {
    let with = |ids: &str| parse(&format!(r#"{{"network_interfaces": {ids}}}"#)).unwrap();
    let refused = |ids: &str| with(ids).validate(&["e0", "e1"]).map_err(|e| e.to_string());
    assert_eq!(refused(r#"["e1", "e0"]"#), Ok(()));
    assert_eq!(
        refused("[]").unwrap_err(),
        "The list of network interface IDs that allow forwarding MMDS requests is empty."
    );
    assert_eq!(
        refused(r#"["e0", "e2"]"#).unwrap_err(),
        "The list of network interface IDs provided contains at least one ID that does not \
         correspond to any existing network interface."
    );
}

#[test]
fn all_problems_of_the_section_are_reported_with_their_keys() {
    let mut problems = Vec::new();
    with_address("10.0.0.1").check(&[], &mut problems);
    let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        ["mmds-config.ipv4_address", "mmds-config.network_interfaces"]
    );
}
