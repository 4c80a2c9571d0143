//! The `network-interfaces` section.

use crate::check::problem::{Problem, check_id, check_unique};
use crate::sections::host_network::HostNetwork;
use crate::sections::rate_limiter::RateLimiter;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Longest name of a Linux network device in bytes: IFNAMSIZ without its terminator.
const MAX_DEV_NAME: usize = 15;
/// Smallest MTU of IPv4 (RFC 791).
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
    /// Id of the interface in the API: letters, digits and `_`.
    pub iface_id: String,
    /// Name of the tap on the host.
    pub host_dev_name: String,
    /// MAC address of the guest's card; the guest chooses one if absent.
    #[serde(default)]
    pub guest_mac: Option<MacAddress>,
    /// MTU in bytes, 68 to 65535; the guest assumes 1500 if absent.
    #[serde(default)]
    pub mtu: Option<u16>,
    /// Receive limits.
    #[serde(default)]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// Transmit limits.
    #[serde(default)]
    pub tx_rate_limiter: Option<RateLimiter>,
    /// Bantam's own, for the jailer: bridge to which the tap `host_dev_name` is added. Both are created if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// Bantam's own, for the jailer: addresses, NAT and guard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostNetwork>,
    /// Bantam's own, written by the jailer: inherited descriptor of an open tap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tap_fd: Option<i32>,
}

/// An invalid value of an interface. The text follows [`Self::field`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InterfaceFault {
    /// The name of the tap.
    #[error(transparent)]
    Tap(BadName),
    /// The name of the bridge.
    #[error(transparent)]
    Bridge(BadName),
    /// The MTU.
    #[error("must be from {MIN_MTU} to 65535")]
    Mtu,
    /// A multicast MAC address.
    #[error("is a multicast address: the first byte must be even")]
    Multicast,
    /// A descriptor below 3.
    #[error("is not a descriptor that the jailer passes on: remove the key")]
    Descriptor,
    /// The interface `of` has the same tap.
    #[error("`{name}` is already used by the interface `{of}`")]
    SharedTap {
        /// The tap.
        name: String,
        /// Id of the other interface.
        of: String,
    },
    /// The interface `of` has the same MAC address.
    #[error("`{mac}` is already used by the interface `{of}`")]
    SharedMac {
        /// The MAC address.
        mac: MacAddress,
        /// Id of the other interface.
        of: String,
    },
    /// The interface with this id has the same descriptor.
    #[error("is already used by the interface `{0}`")]
    SharedDescriptor(String),
}

/// An invalid name of a network device.
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
    /// Returns the key of the value.
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
    /// Returns all invalid values, also in comparison with `others`. The id is not checked.
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
        // 0 to 2 are the standard streams.
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
        // Each interface owns its descriptor and closes it.
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
