//! Network interfaces.

use crate::check::problem::{Problem, check_id, check_unique};
use crate::sections::host_network::HostNetwork;
use crate::sections::rate_limiter::RateLimiter;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name of a Linux network device: IFNAMSIZ without its terminator.
const MAX_DEV_NAME: usize = 15;
/// Smallest packet that every IPv4 host must be able to send (RFC 791).
const MIN_MTU: u16 = 68;

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
    /// Bantam's own, for the jailer: the network around the guest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostNetwork>,
    /// Bantam's own, written by the jailer: the inherited descriptor of an open tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap_fd: Option<i32>,
}

/// Why an interface cannot be; the text goes with [`Self::field`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceFault {
    /// The tap.
    #[error(transparent)]
    Tap(BadName),
    /// The bridge.
    #[error(transparent)]
    Bridge(BadName),
    /// The largest packet.
    #[error("must be from {MIN_MTU} to 65535")]
    Mtu,
    /// An address of many.
    #[error("is a multicast address: the first byte must be even")]
    Multicast,
    /// A descriptor that is the terminal's.
    #[error("is not a descriptor the jailer hands over: remove the key")]
    Descriptor,
    /// The tap is that of the interface `of`.
    #[error("`{name}` is already used by the interface `{of}`")]
    SharedTap {
        /// The tap.
        name: String,
        /// Whose.
        of: String,
    },
    /// The address is that of the interface `of`.
    #[error("`{mac}` is already used by the interface `{of}`")]
    SharedMac {
        /// The address.
        mac: MacAddress,
        /// Whose.
        of: String,
    },
    /// The descriptor is that of the interface of this id.
    #[error("is already used by the interface `{0}`")]
    SharedDescriptor(String),
}

/// A name that no network device can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not the name of a network device: at most {MAX_DEV_NAME} bytes, without spaces, `/`, `:` or `%`"
)]
pub struct BadName(String);

fn check_dev_name(name: &str) -> Result<(), BadName> {
    let bad = |c: char| c == '/' || c == ':' || c == '%' || c.is_whitespace() || c.is_control();
    match name.is_empty()
        || name.len() > MAX_DEV_NAME
        || name.contains(bad)
        || name.starts_with('.')
    {
        true => Err(BadName(name.to_owned())),
        false => Ok(()),
    }
}

impl InterfaceFault {
    /// The key whose value it is.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Tap(_) | Self::SharedTap { .. } => "host_dev_name",
            Self::Bridge(_) => "bridge",
            Self::Mtu => "mtu",
            Self::Multicast | Self::SharedMac { .. } => "guest_mac",
            Self::Descriptor | Self::SharedDescriptor(_) => "tap_fd",
        }
    }
}

impl NetworkInterface {
    /// Everything that this cannot be, by itself and beside `others`; its id is not looked at.
    pub fn faults<'a>(
        &self,
        others: impl Iterator<Item = &'a Self> + Clone,
    ) -> Vec<InterfaceFault> {
        let mut faults = Vec::new();
        faults.extend(
            check_dev_name(&self.host_dev_name)
                .err()
                .map(InterfaceFault::Tap),
        );
        let bridge = self.bridge.as_deref().map(check_dev_name);
        faults.extend(bridge.and_then(Result::err).map(InterfaceFault::Bridge));
        // 0 to 2 are the terminal's.
        let descriptor = self.tap_fd.is_some_and(|fd| fd < 3);
        for (is, fault) in [
            (
                self.mtu.is_some_and(|mtu| mtu < MIN_MTU),
                InterfaceFault::Mtu,
            ),
            (
                self.guest_mac.is_some_and(|mac| mac.0[0] & 1 == 1),
                InterfaceFault::Multicast,
            ),
            (descriptor, InterfaceFault::Descriptor),
        ] {
            faults.extend(is.then_some(fault));
        }
        let of = |same: fn(&Self, &Self) -> bool| {
            let mut others = others.clone();
            others
                .find(|other| same(self, other))
                .map(|other| other.iface_id.clone())
        };
        if let (Some(mac), Some(of)) = (self.guest_mac, of(|a, b| a.guest_mac == b.guest_mac)) {
            faults.push(InterfaceFault::SharedMac { mac, of });
        }
        if let Some(of) = of(|a, b| a.host_dev_name == b.host_dev_name) {
            let name = self.host_dev_name.clone();
            faults.push(InterfaceFault::SharedTap { name, of });
        }
        // Each is owned, and closed, by its interface.
        if let (Some(_), Some(of)) = (self.tap_fd, of(|a, b| a.tap_fd == b.tap_fd)) {
            faults.push(InterfaceFault::SharedDescriptor(of));
        }
        faults
    }
}

/// Checks the whole section.
pub(crate) fn check_interfaces(interfaces: &[NetworkInterface], problems: &mut Vec<Problem>) {
    for (i, interface) in interfaces.iter().enumerate() {
        let key = format!("network-interfaces[{i}]");
        check_id(&format!("{key}.iface_id"), &interface.iface_id, problems);
        let faults = interface.faults(interfaces.iter().take(i));
        problems.extend(
            faults
                .iter()
                .map(|fault| Problem::new(format!("{key}.{}", fault.field()), fault.to_string())),
        );
        if let Some(host) = &interface.host {
            host.check(&format!("{key}.host"), interface, problems);
        }
    }
    let ids = interfaces.iter().map(|n| n.iface_id.as_str());
    check_unique("network-interfaces", "iface_id", ids, problems);
}
