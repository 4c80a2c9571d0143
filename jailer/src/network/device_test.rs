use super::*;

#[test]
fn only_a_bridge_has_ports() {
    let devices = Devices::open().unwrap();
    let refused = devices.ports("lo").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
}

#[test]
fn a_missing_device_is_not_an_error() {
    let devices = Devices::open().unwrap();
    assert_eq!(devices.find("no-such-device").unwrap(), None);
    let missing = devices.get("no-such-device").unwrap_err();
    assert_eq!(missing.raw_os_error(), Some(libc::ENODEV));
}
