use super::testing::*;
use super::*;
use serde_json::json;

#[test]
fn clones_share_the_service() {
    let mmds = Mmds::new(LIMIT).unwrap();
    let other = mmds.clone();
    assert_eq!(
        mmds.get(),
        json!({}),
        "no data is an empty object to the host"
    );
    assert_eq!(other.patch(json!({})), Err(StoreError::NotInitialized));
    mmds.put(json!([1])).unwrap();
    assert_eq!(other.get(), json!([1]));
    other.patch(json!({"a": 1})).unwrap();
    assert_eq!(mmds.get(), json!({"a": 1}));
    assert_eq!(
        mmds.put(json!("x".repeat(LIMIT))),
        Err(StoreError::TooLarge)
    );
    mmds.put(json!("x".repeat(LIMIT - 2))).unwrap();
}

#[test]
fn responders_follow_the_configuration() {
    let (mmds, _) = service();
    let card = mmds.responder();
    let asks = |address: &str| {
        let ip = ipv4::header(GUEST, address.parse().unwrap(), 0).unwrap();
        frame(ethernet::IPV4, &ip)
    };
    assert!(card.takes(&asks("169.254.169.254")));
    let config = json!({
        "network_interfaces": ["e0"], "ipv4_address": "169.254.170.2", "version": "V2", "imds_compat": true
    });
    mmds.configure(&serde_json::from_value(config).unwrap());
    assert!(!card.takes(&asks("169.254.169.254")));
    assert!(card.takes(&asks("169.254.170.2")));
    mmds.put(json!({"a": "b"})).unwrap();
    let refused = mmds.0.answer(b"GET /a HTTP/1.1\r\n\r\n").unwrap();
    assert!(refused.response.starts_with(b"HTTP/1.1 401 "));
}

#[test]
fn metrics_have_firecracker_s_names() {
    let (mmds, _) = service();
    let mut names = Vec::new();
    mmds.metrics().visit(&mut |name, _| names.push(name));
    assert_eq!(mmds.metrics().group(), "mmds");
    let expected = "rx_accepted rx_accepted_err rx_accepted_unusual rx_bad_eth rx_invalid_token rx_no_token \
                    rx_count tx_bytes tx_count tx_errors tx_frames connections_created connections_destroyed";
    assert_eq!(names.join(" "), expected);
}
