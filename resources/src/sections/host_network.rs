//! The key `host` of a network interface, Bantam's own: bridge addresses, NAT and guard, which the jailer sets up.

use crate::check::problem::Problem;
use crate::sections::network::NetworkInterface;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The key `host` of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HostNetwork {
    /// Addresses of the bridge with their prefix lengths, e.g. `10.88.0.1/24`, if the jailer creates the bridge.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bridge_addresses: Vec<IpNet>,
    /// True to translate and forward packets from the guest to other networks (NAT).
    pub nat: bool,
    /// True to block traffic to other isolated guests on the bridge.
    pub isolated: bool,
    /// True to drop packets whose source is not the guest's MAC address, or not one of `addresses` if there are any.
    pub spoof_guard: bool,
    /// Addresses of the guest with their prefix lengths, e.g. `10.88.0.5/24`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpNet>,
    /// Default gateways of the guest; the bridge's addresses if empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub gateways: Vec<IpAddr>,
    /// Name servers of the guest.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<IpAddr>,
}

impl HostNetwork {
    /// Returns the gateways: the given ones, else the bridge's addresses in a network of the guest.
    pub fn gateways(&self) -> Vec<IpAddr> {
        if !self.gateways.is_empty() {
            return self.gateways.clone();
        }
        let shared = self.bridge_addresses.iter().filter(|bridge| {
            let mut own = self.addresses.iter();
            own.any(|address| address.contains(&bridge.addr()))
        });
        shared.map(IpNet::addr).collect()
    }

    /// Reports problems, also in combination with other keys of `interface`.
    pub(crate) fn check(
        &self,
        key: &str,
        interface: &NetworkInterface,
        problems: &mut Vec<Problem>,
    ) {
        let mut wrong = |field: &str, message: String| {
            problems.push(Problem::new(format!("{key}.{field}"), message));
        };
        let made = interface.bridge.is_some();
        for (field, given) in [
            ("bridge_addresses", !self.bridge_addresses.is_empty()),
            ("nat", self.nat),
            ("isolated", self.isolated),
            ("spoof_guard", self.spoof_guard),
        ] {
            if given && !made {
                wrong(field, "needs the key `bridge`: name the bridge".into());
            }
        }
        if self.nat && self.bridge_addresses.is_empty() {
            let message = "needs `bridge_addresses`, which name the network to translate";
            wrong("nat", message.into());
        }
        if self.spoof_guard && interface.guest_mac.is_none() {
            let message = "needs the key `guest_mac`, the only source address that passes";
            wrong("spoof_guard", message.into());
        }
        for (field, addresses) in [
            ("bridge_addresses", &self.bridge_addresses),
            ("addresses", &self.addresses),
        ] {
            for (i, net) in addresses.iter().enumerate() {
                if let Some(what) = unusable(net) {
                    wrong(
                        &format!("{field}[{i}]"),
                        format!(
                            "{net} is {what}: name a host's address with its network, as 10.88.0.5/24"
                        ),
                    );
                }
            }
        }
    }
}

/// Returns the reason why no host can have the address of `net`.
fn unusable(net: &IpNet) -> Option<&'static str> {
    let address = net.addr();
    if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
        return Some("no address of a host");
    }
    match net {
        // RFC 3021: a network of two addresses has neither.
        IpNet::V4(v4) if v4.prefix_len() >= 31 => None,
        IpNet::V4(v4) if v4.addr() == v4.network() => Some("the address of a network"),
        IpNet::V4(v4) if v4.addr() == v4.broadcast() => Some("the address of all of a network"),
        _ => None,
    }
}

#[cfg(test)]
#[path = "host_network_test.rs"]
mod host_network_test;
