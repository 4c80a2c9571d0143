use super::*;

#[test]
fn an_interface_has_a_tap_and_an_address_of_its_own() {
    let text = "bridge=br0,address=10.88.0.5/24,address=fd00::5/64,guard=on";
    let interface = parse(text, "web1", 0, &[]).unwrap();
    assert_eq!(interface.host_dev_name, "web1-0");
    assert_eq!(interface.bridge.as_deref(), Some("br0"));
    assert!(
        interface
            .guest_mac
            .is_some_and(|mac| mac.to_string().starts_with("52:54:00:"))
    );
    let host = interface.host.unwrap();
    assert_eq!(host.addresses.len(), 2);
    assert!(host.spoof_guard && !host.nat);
    assert_eq!(parse("bridge=br0", "web1", 0, &[]).unwrap().host, None);
}

#[test]
fn taps_of_long_names_differ() {
    let names = ["a-rather-long-name-1", "a-rather-long-name-2"].map(|guest| tap(guest, 0));
    assert_ne!(names[0], names[1]);
    assert!(names.iter().all(|name| name.len() <= MAX_NAME), "{names:?}");
}

#[test]
fn invalid_interfaces_are_refused() {
    for (text, part) in [
        ("mac=52:54:00:12:34:56", "give bridge="),
        ("bridge=br0,mac=x", "mac=52:"),
        ("bridge=br0,address=10.0.0.1", "address=10"),
        ("bridge=br0,model=e1000", "virtio"),
        ("bridge=br0,vlan=7", "unknown key `vlan`"),
    ] {
        let message = parse(text, "g", 0, &[]).unwrap_err();
        assert!(message.contains(part), "{text}: {message}");
    }
}
