//! The option `--network`, in the words of virt-install.

use crate::guests::pairs::Pairs;
use resources::{HostNetwork, MacAddress, NetworkInterface};

const KEYS: &str =
    "bridge, mac, target, mtu, address, gateway, dns, bridge-address, nat, isolated, guard, model";
/// Longest name of a network device, in bytes.
const MAX_NAME: usize = 15;

/// Returns the interface number `index` of the guest `guest`, which `text` describes. `taken` are MAC addresses of
/// other interfaces.
pub fn parse(
    text: &str,
    guest: &str,
    index: usize,
    taken: &[MacAddress],
) -> Result<NetworkInterface, String> {
    let mut pairs = Pairs::parse("--network", text)?;
    let Some(bridge) = pairs.take("bridge") else {
        return Err(format!(
            "--network {text:.100}: give bridge=BRIDGE, e.g. bridge=br0"
        ));
    };
    match pairs.take("model").as_deref() {
        None | Some("virtio") => {}
        Some(other) => return Err(format!("--network model={other:.60}: there is only virtio")),
    }
    let mac = pairs.take_as("mac", "52:54:00:12:34:56")?;
    let net = "10.88.0.5/24";
    let host = HostNetwork {
        bridge_addresses: pairs.take_all("bridge-address", "10.88.0.1/24")?,
        nat: pairs.take_switch("nat")?,
        isolated: pairs.take_switch("isolated")?,
        spoof_guard: pairs.take_switch("guard")?,
        addresses: pairs.take_all("address", net)?,
        gateways: pairs.take_all("gateway", "10.88.0.1")?,
        nameservers: pairs.take_all("dns", "10.88.0.1")?,
    };
    let interface = NetworkInterface {
        iface_id: format!("eth{index}"),
        host_dev_name: pairs.take("target").unwrap_or_else(|| tap(guest, index)),
        guest_mac: Some(match mac {
            Some(mac) => mac,
            None => random(taken)?,
        }),
        mtu: pairs.take_as("mtu", "1500")?,
        bridge: Some(bridge),
        host: Some(host).filter(|host| *host != HostNetwork::default()),
        ..NetworkInterface::default()
    };
    pairs.end(KEYS)?;
    Ok(interface)
}

/// Returns the tap's name: the guest's if it fits, or else its beginning and a hash of it.
fn tap(guest: &str, index: usize) -> String {
    let whole = format!("{guest}-{index}");
    if whole.len() <= MAX_NAME {
        return whole;
    }
    let hash = jailer::undo::record::fingerprint(guest.as_ref());
    let end = format!("{:06x}-{index}", hash & 0xff_ffff);
    let start = guest
        .get(..MAX_NAME.saturating_sub(end.len()))
        .unwrap_or_default();
    format!("{start}{end}")
}

/// Returns a random address with the prefix that KVM guests usually have, and that no other guest has.
fn random(taken: &[MacAddress]) -> Result<MacAddress, String> {
    loop {
        let mut end = [0; 3];
        getrandom::fill(&mut end)
            .map_err(|e| format!("cannot get random bytes for a MAC address: {e}"))?;
        let [a, b, c] = end;
        let mac = MacAddress([0x52, 0x54, 0x00, a, b, c]);
        if !taken.contains(&mac) {
            return Ok(mac);
        }
    }
}

#[cfg(test)]
#[path = "network_test.rs"]
mod network_test;
