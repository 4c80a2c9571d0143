//! A guest's network interfaces: checked before anything is made, and made.
//!
//! A tap with the key `bridge` is made here. It lives as long as one of its descriptors, which the monitor inherits, so
//! it needs no clean-up. Packet filter rules stay until the guest is cleaned up, and a bridge until its last guest is.

use crate::confine::namespaces;
use crate::error::Error;
use crate::network::bridge::{self, BridgeLock};
use crate::network::device::{BRIDGE, Devices};
use crate::network::rules::{self, Guarded};
use crate::network::tap;
use crate::undo::Undo;
use crate::undo::record::Made;
use ipnet::{IpNet, Ipv4Net};
use resources::{HostNetwork, NetworkInterface, Problem, VmConfig};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A checked interface.
#[derive(Debug)]
pub enum Interface {
    /// An existing tap, open.
    Existing(OwnedFd),
    /// A tap to make.
    New(Box<NewTap>),
}

/// A tap to make.
#[derive(Debug)]
pub struct NewTap {
    /// The interface's key in the configuration.
    key: String,
    /// Its name.
    name: String,
    /// The bridge it joins.
    bridge: String,
    /// MTU in bytes; the device's default if absent.
    mtu: Option<u16>,
    /// The host's side of the interface.
    host: HostNetwork,
    /// The addresses it may send from, if it is guarded.
    guarded: Option<Guarded>,
}

/// Checks that the taps and bridges of `interfaces` exist or can be made, without making any.
pub fn check(interfaces: &[NetworkInterface], problems: &mut Vec<Problem>) -> Vec<Interface> {
    if interfaces.is_empty() {
        return Vec::new();
    }
    let devices = match Devices::open() {
        Ok(devices) => devices,
        Err(e) => {
            let message = format!("cannot open a socket for network devices: {e}");
            problems.push(Problem::new("network-interfaces", message));
            return Vec::new();
        }
    };
    let tun = Path::new(tap::TUN);
    if !tun.exists() {
        let message = format!("there is no {}: load the module `tun`", tun.display());
        problems.push(Problem::new("network-interfaces", message));
        return Vec::new();
    }
    let mut found = Vec::new();
    for (i, interface) in interfaces.iter().enumerate() {
        let key = format!("network-interfaces[{i}]");
        let others = interfaces.iter().map(|n| n.host_dev_name.as_str());
        match check_one(&devices, &key, interface, others) {
            Ok(interface) => found.push(interface),
            Err(problem) => problems.push(problem),
        }
    }
    found
}

fn check_one<'a>(
    devices: &Devices,
    key: &str,
    interface: &NetworkInterface,
    mut taps: impl Iterator<Item = &'a str>,
) -> Result<Interface, Problem> {
    let name = &interface.host_dev_name;
    let tap = |message: String| Problem::new(format!("{key}.host_dev_name"), message);
    if interface.tap_fd.is_some() {
        let message = "is set by the jailer itself: remove the key";
        return Err(Problem::new(format!("{key}.tap_fd"), message));
    }
    let kind = |name: &str| {
        let device = devices.find(name);
        let device = device
            .map_err(|e| Problem::new(key, format!("cannot examine the device {name}: {e}")))?;
        Ok::<_, Problem>(device.map(|device| device.kind))
    };
    let existing = kind(name)?;
    let Some(bridge) = &interface.bridge else {
        return match existing.as_deref() {
            None => Err(tap(format!(
                "there is no tap {name}: add the key `bridge` and the jailer makes it, or create it \
                 with `ip tuntap add {name} mode tap`"
            ))),
            Some("tun") => tap::attach(name)
                .map(Interface::Existing)
                .map_err(|e| tap(tap::explain(name, &e))),
            Some(other) => Err(tap(format!(
                "{name} is a device of kind `{other}`, not a tap: choose another name"
            ))),
        };
    };
    if existing.is_some() {
        return Err(tap(format!(
            "there is a device {name} already, of a running guest or made by hand: choose another name, \
             remove it with `ip link del {name}`, or remove the key `bridge` to use it as it is"
        )));
    }
    let wrong_bridge = |message| Err(Problem::new(format!("{key}.bridge"), message));
    if taps.any(|tap| tap == bridge) {
        return wrong_bridge(format!("{bridge} is the name of a tap: choose another"));
    }
    if let Some(other) = kind(bridge)?.filter(|kind| kind != BRIDGE) {
        return wrong_bridge(format!(
            "{bridge} is a device of kind `{other}`, not a bridge: choose another name"
        ));
    }
    Ok(Interface::New(Box::new(NewTap {
        key: key.into(),
        name: name.clone(),
        bridge: bridge.clone(),
        mtu: interface.mtu,
        guarded: guarded(key, interface)?,
        host: interface.host.clone().unwrap_or_default(),
    })))
}

/// Checks that no other guest has a tap, MAC address or IP address of `interfaces`, a new guest's.
pub fn check_new(
    interfaces: &[NetworkInterface],
    others: &[VmConfig],
    problems: &mut Vec<Problem>,
) {
    for (i, interface) in interfaces.iter().enumerate() {
        let mut wrong = |field: &str, what: String| {
            let message = format!("{what} is another guest's: choose another");
            problems.push(Problem::new(
                format!("network-interfaces[{i}].{field}"),
                message,
            ));
        };
        for other in others.iter().flat_map(|other| &other.network_interfaces) {
            if other.host_dev_name == interface.host_dev_name {
                wrong("host_dev_name", interface.host_dev_name.clone());
            }
            if let (Some(mac), Some(same)) = (interface.guest_mac, other.guest_mac)
                && mac == same
            {
                wrong("guest_mac", mac.to_string());
            }
            let addresses = |of: &NetworkInterface| {
                let host = of.host.clone().unwrap_or_default();
                host.addresses
                    .iter()
                    .map(ipnet::IpNet::addr)
                    .collect::<Vec<_>>()
            };
            let taken = addresses(other);
            for address in addresses(interface).iter().filter(|a| taken.contains(a)) {
                if interface.bridge == other.bridge {
                    wrong("host.addresses", address.to_string());
                }
            }
        }
    }
}

/// Returns the addresses to which the rules of `interface` bind its tap; `None` if it has no guard.
fn guarded(key: &str, interface: &NetworkInterface) -> Result<Option<Guarded>, Problem> {
    let host = interface.host.as_ref();
    let wanted = host.filter(|host| host.spoof_guard || host.nat);
    let Some(host) = wanted else {
        return Ok(None);
    };
    if crate::sys::tool::find("nft").is_none() {
        let message = "needs the program nft: `apt install nftables`";
        return Err(Problem::new(format!("{key}.host"), message));
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    for name in [Some(&interface.host_dev_name), interface.bridge.as_ref()] {
        if let Some(name) = name.filter(|name| !name.chars().all(plain)) {
            let message = format!("rules cannot name `{name}`: use letters, digits, `-`, `_`, `.`");
            return Err(Problem::new(format!("{key}.host"), message));
        }
    }
    let mac = interface.guest_mac.filter(|_| host.spoof_guard);
    Ok(mac.map(|mac| Guarded {
        tap: interface.host_dev_name.clone(),
        mac,
        addresses: host.addresses.clone(),
    }))
}

/// Makes the taps and bridges that [`check`] found missing for the guest `id`; returns the taps, in order. `own` says
/// that the network namespace belongs to this guest alone, and disappears with it.
pub fn make(
    id: &str,
    interfaces: Vec<Interface>,
    owner: nix::unistd::Uid,
    own: bool,
    undo: &mut Undo,
) -> Result<Vec<OwnedFd>, Error> {
    let mut taps = Vec::new();
    let mut all_guarded = Vec::new();
    for interface in &interfaces {
        if let Interface::New(tap) = interface {
            all_guarded.extend(tap.guarded.clone());
        }
    }
    // The rules come before the taps whose packets they filter.
    if !all_guarded.is_empty() {
        rules::guard(id, &all_guarded, undo)?;
    }
    for interface in interfaces {
        taps.push(match interface {
            Interface::Existing(tap) => tap,
            Interface::New(tap) => tap.make(owner, own, undo)?,
        });
    }
    Ok(taps)
}

impl NewTap {
    /// Makes the bridge if it is missing, and the tap on it.
    fn make(&self, owner: nix::unistd::Uid, own: bool, undo: &mut Undo) -> Result<OwnedFd, Error> {
        let (key, name, bridge) = (&self.key, &self.name, &self.bridge);
        let open = || Devices::open().map_err(Error::step("open a socket for network devices"));
        let devices = open()?;
        let addresses = &self.host.bridge_addresses;
        if own {
            bridge::make_own(&devices, key, bridge, addresses)?;
        } else {
            let mut lock = BridgeLock::new(bridge)?;
            undo.announce(|made| made.bridges.push(bridge.clone()))?;
            let nat = self.host.nat;
            lock.ensure(open()?, key, addresses, nat, undo)?;
            if nat {
                rules::translate(bridge, addresses, undo)?;
            }
        }
        let tap = tap::create(key, name, owner)?;
        undo.checkpoint()?;
        tap::join(&devices, key, name, bridge, self.mtu, self.host.isolated)?;
        undo.checkpoint()?;
        Ok(tap)
    }
}

/// Returns the IPv4 addresses of the bridge `name`.
pub fn addresses_of(name: &str) -> io::Result<Vec<IpNet>> {
    let all = nix::ifaddrs::getifaddrs()?;
    let found = all.filter(|one| one.interface_name == name);
    let nets = found.filter_map(|one| {
        let (address, mask) = (one.address?, one.netmask?);
        match (address.as_sockaddr_in(), mask.as_sockaddr_in()) {
            (Some(address), Some(mask)) => {
                let net = Ipv4Net::with_netmask(address.ip(), mask.ip());
                net.ok().map(IpNet::V4)
            }
            // IPv6: every device has a link-local address by itself.
            _ => None,
        }
    });
    Ok(nets.collect())
}

/// Brings up the loopback device of this thread's network namespace.
pub fn switch_on_loopback() -> io::Result<()> {
    Devices::open()?.set_up("lo", true)
}

/// Removes the packet filter tables and bridges that `made` records. Bridges in `kept` stay.
pub fn clear(made: &Made, kept: &[&str]) -> Result<(), Error> {
    if made.tables.is_empty() && made.bridges.is_empty() {
        return Ok(());
    }
    let Some(path) = &made.netns else {
        return clear_here(made, kept);
    };
    if !path.exists() {
        // Its devices and tables disappeared with it.
        return Ok(());
    }
    namespaces::in_network(path, || clear_here(made, kept))
        .map_err(Error::step(format!("enter {}", path.display())))?
}

fn clear_here(made: &Made, kept: &[&str]) -> Result<(), Error> {
    for table in &made.tables {
        rules::remove(table)?;
    }
    let unused = made
        .bridges
        .iter()
        .filter(|name| !kept.contains(&name.as_str()));
    for name in unused {
        let devices = Devices::open();
        let devices = devices.map_err(Error::step("open a socket for network devices"))?;
        BridgeLock::new(name)?.remove_unused(&devices)?;
    }
    Ok(())
}
