//! The guest's network on the host: taps, and the bridges they are on.
//!
//! A tap with the key `bridge` is made here and lives as long as a descriptor of it is open, which
//! the VMM inherits; nothing needs to be taken away at its end. A bridge that was created stays, as
//! other guests may be on it by then, until the last of them is cleaned up, as do packet filter rules.

use crate::confine::namespaces;
use crate::error::Error;
use crate::network::device::Control;
use crate::network::rules::{self, Guarded};
use crate::network::{bridge, tap};
use crate::undo::Undo;
use crate::undo::record::Made;
use ipnet::{IpNet, Ipv4Net};
use resources::{HostNetwork, NetworkInterface, Problem, VmConfig};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

/// One interface, checked: what is there already, and what is to be made.
#[derive(Debug)]
pub enum Interface {
    /// A tap that exists, open.
    Existing(OwnedFd),
    /// A tap to make.
    New(Box<NewTap>),
}

/// A tap to make.
#[derive(Debug)]
pub struct NewTap {
    /// Its key in the configuration.
    key: String,
    /// Its name.
    name: String,
    /// The bridge it goes on.
    bridge: String,
    /// Largest packet in bytes, the device's default if absent.
    mtu: Option<u16>,
    /// What is around it.
    around: HostNetwork,
    /// What it may send from, if that is guarded.
    guarded: Option<Guarded>,
}

/// Finds out whether the taps and bridges that `interfaces` ask for can be had, without making any.
pub fn check(interfaces: &[NetworkInterface], problems: &mut Vec<Problem>) -> Vec<Interface> {
    if interfaces.is_empty() {
        return Vec::new();
    }
    let control = match Control::open() {
        Ok(control) => control,
        Err(e) => {
            let message = format!("cannot open a socket to look at network devices: {e}");
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
        match check_one(&control, &key, interface, others) {
            Ok(interface) => found.push(interface),
            Err(problem) => problems.push(problem),
        }
    }
    found
}

fn check_one<'a>(
    control: &Control,
    key: &str,
    interface: &NetworkInterface,
    mut taps: impl Iterator<Item = &'a str>,
) -> Result<Interface, Problem> {
    let name = &interface.host_dev_name;
    let tap = |message: String| Problem::new(format!("{key}.host_dev_name"), message);
    if interface.tap_fd.is_some() {
        let message = "is written by the jailer itself: remove the key";
        return Err(Problem::new(format!("{key}.tap_fd"), message));
    }
    let driver = |name: &str| {
        let driver = control.driver(name);
        driver.map_err(|e| Problem::new(key, format!("cannot look at the device {name}: {e}")))
    };
    let existing = driver(name)?;
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
            "a device {name} exists already, a running guest's or one made by hand: choose another \
             name, remove it with `ip link del {name}`, or remove the key `bridge` to use it as it is"
        )));
    }
    let wrong_bridge = |message| Err(Problem::new(format!("{key}.bridge"), message));
    if taps.any(|tap| tap == bridge) {
        return wrong_bridge(format!("{bridge} is the name of a tap: choose another"));
    }
    if let Some(other) = driver(bridge)?.filter(|kind| kind != bridge::DRIVER) {
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
        around: interface.host.clone().unwrap_or_default(),
    })))
}

/// Finds out what of `interfaces`, a new guest's, another guest has already.
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

/// What the rules of `interface` are made from.
fn guarded(key: &str, interface: &NetworkInterface) -> Result<Option<Guarded>, Problem> {
    let around = interface.host.as_ref();
    let wanted = around.filter(|host| host.spoof_guard || host.nat);
    let Some(around) = wanted else {
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
    let mac = interface.guest_mac.filter(|_| around.spoof_guard);
    Ok(mac.map(|mac| Guarded {
        tap: interface.host_dev_name.clone(),
        mac,
        addresses: around.addresses.clone(),
    }))
}

/// Makes what [`check`] found missing for the guest `id`; the taps' descriptors, in order. `own` tells that the network
/// is the guest's alone, and goes with it.
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
    // Before there is a tap whose packets they are about.
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
    /// Makes the bridge if it is absent, and the tap on it.
    fn make(&self, owner: nix::unistd::Uid, own: bool, undo: &mut Undo) -> Result<OwnedFd, Error> {
        let (key, name, bridge) = (&self.key, &self.name, &self.bridge);
        let control =
            Control::open().map_err(Error::step("open a socket to make network devices"))?;
        let addresses = &self.around.bridge_addresses;
        if own {
            bridge::make_own(&control, key, bridge, addresses)?;
        } else {
            let mut held = bridge::Held::new(bridge)?;
            undo.announce(|made| made.bridges.push(bridge.clone()))?;
            let nat = self.around.nat;
            held.ensure(control, key, addresses, nat, undo)?;
            if nat {
                rules::translate(bridge, addresses, undo)?;
            }
        }
        let tap = tap::create(key, name, owner)?;
        undo.checkpoint()?;
        tap::join(key, name, bridge, self.mtu, self.around.isolated)?;
        undo.checkpoint()?;
        Ok(tap)
    }
}

/// The addresses of the bridge `name`, which somebody else has made.
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
            // Addresses of the link every device has.
            _ => None,
        }
    });
    Ok(nets.collect())
}

/// Switches on the loopback device of a new network namespace, which this thread is in.
pub fn switch_on_loopback() -> io::Result<()> {
    Control::open()?.set_up("lo", true)
}

/// Removes what a guest left in the network: `made` is its record. Bridges in `kept` are to be used again.
pub fn clear(made: &Made, kept: &[&str]) -> Result<(), Error> {
    if made.tables.is_empty() && made.bridges.is_empty() {
        return Ok(());
    }
    let Some(path) = &made.netns else {
        return clear_here(made, kept);
    };
    if !path.exists() {
        // What was in it has gone with it.
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
        let control = Control::open().map_err(Error::step("open a socket"))?;
        bridge::Held::new(name)?.remove_unused(&control)?;
    }
    Ok(())
}
