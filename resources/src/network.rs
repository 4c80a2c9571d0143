//! Network interfaces.

use crate::problem::{check_id, check_unique};
use crate::{Problem, RateLimiter};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name of a Linux network device: IFNAMSIZ without its terminator.
const MAX_DEV_NAME: usize = 15;

/// An Ethernet address, written `06:00:ac:10:00:02`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MacAddress(pub [u8; 6]);

impl FromStr for MacAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || format!("`{text}` is not a MAC address: write six bytes as 06:00:ac:10:00:02");
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        match parts.next() {
            None => Ok(Self(bytes)),
            Some(_) => Err(bad()),
        }
    }
}

impl TryFrom<String> for MacAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<MacAddress> for String {
    fn from(mac: MacAddress) -> Self {
        mac.to_string()
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// One entry of `network-interfaces`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkInterface {
    /// Name of the interface in the API: letters, digits and `_`.
    pub iface_id: String,
    /// The tap on the host.
    pub host_dev_name: String,
    /// Address of the guest's card; the guest chooses if absent.
    #[serde(default)]
    pub guest_mac: Option<MacAddress>,
    /// Largest packet the guest is told to send, 68 to 65535 bytes; 1500 in the guest if absent.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Limits on what the guest receives.
    #[serde(default)]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// Limits on what the guest sends.
    #[serde(default)]
    pub tx_rate_limiter: Option<RateLimiter>,
    /// Bantam's own, for the jailer: create the tap `host_dev_name` and put it on this bridge,
    /// which is created if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Bantam's own, written by the jailer: the inherited descriptor of an open tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap_fd: Option<i32>,
}

fn check_dev_name(key: String, name: &str, problems: &mut Vec<Problem>) {
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name.len() > MAX_DEV_NAME || name.contains(bad) || name.starts_with('.') {
        let message = format!(
            "`{name}` is not the name of a network device: at most {MAX_DEV_NAME} bytes, \
             without spaces, `/`, `:` or `%`"
        );
        problems.push(Problem::new(key, message));
    }
}

impl NetworkInterface {
    fn check(&self, key: &str, problems: &mut Vec<Problem>) {
        check_id(&format!("{key}.iface_id"), &self.iface_id, problems);
        check_dev_name(
            format!("{key}.host_dev_name"),
            &self.host_dev_name,
            problems,
        );
        if let Some(bridge) = &self.bridge {
            check_dev_name(format!("{key}.bridge"), bridge, problems);
        }
        if self.mtu.is_some_and(|mtu| mtu < 68) {
            problems.push(Problem::new(
                format!("{key}.mtu"),
                "must be from 68 to 65535",
            ));
        }
        if self.guest_mac.is_some_and(|mac| mac.0[0] & 1 == 1) {
            let message = "is a multicast address: the first byte must be even";
            problems.push(Problem::new(format!("{key}.guest_mac"), message));
        }
        // 0 to 2 are the terminal's.
        if self.tap_fd.is_some_and(|fd| fd < 3) {
            problems.push(Problem::new(
                format!("{key}.tap_fd"),
                "is not a descriptor the jailer hands over: remove the key",
            ));
        }
    }
}

/// Checks the whole section.
pub(crate) fn check_interfaces(interfaces: &[NetworkInterface], problems: &mut Vec<Problem>) {
    for (i, interface) in interfaces.iter().enumerate() {
        interface.check(&format!("network-interfaces[{i}]"), problems);
    }
    let ids = interfaces.iter().map(|n| n.iface_id.as_str());
    check_unique("network-interfaces", "iface_id", ids, problems);
    let taps = interfaces.iter().map(|n| n.host_dev_name.as_str());
    check_unique("network-interfaces", "host_dev_name", taps, problems);
    // Each is owned, and closed, by its interface.
    for (i, interface) in interfaces.iter().enumerate() {
        let earlier = || interfaces.iter().take(i);
        if interface.tap_fd.is_some() && earlier().any(|other| other.tap_fd == interface.tap_fd) {
            problems.push(Problem::new(
                format!("network-interfaces[{i}].tap_fd"),
                "is already used by another interface",
            ));
        }
    }
}
