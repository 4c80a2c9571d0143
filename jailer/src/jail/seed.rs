//! The seed: a small FAT volume with the label `CIDATA`, on which cloud-init finds the guest's name, keys and addresses
//! (its data source NoCloud). The same configuration gives the same bytes.
//!
//! Its files are YAML. They are written as JSON, which is YAML except for the characters that [`yaml`] escapes.

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use ipnet::IpNet;
use resources::{NetworkInterface, Problem, Seed, VmConfig};
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Write as _};
use std::net::IpAddr;

/// Id of the guest's drive with the seed.
pub const DRIVE: &str = "seed";
/// Size of the volume in bytes, larger than any configuration file.
const SIZE: usize = 4 << 20;
/// Serial number of the volume; fixed, so that the same seed has the same bytes.
const SERIAL: u32 = 0xba17_a300;

/// Returns the seed of the guest that `config` describes; `None` if it has none, or if there are new `problems`.
pub fn make(config: &VmConfig, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let seed = config.host.as_ref()?.seed.as_ref()?;
    let before = problems.len();
    for (i, interface) in config.network_interfaces.iter().enumerate() {
        if interface.guest_mac.is_none() {
            let message = "is missing: with `host.seed`, the guest recognises its interfaces by their MAC addresses; \
                           write one like 06:00:ac:10:00:02";
            let key = format!("network-interfaces[{i}].guest_mac");
            problems.push(Problem::new(key, message));
        }
    }
    for (i, drive) in config.drives.iter().enumerate() {
        if drive.drive_id == DRIVE {
            let message = "is the name of the drive that `host.seed` makes: choose another";
            problems.push(Problem::new(format!("drives[{i}].drive_id"), message));
        }
    }
    if problems.len() > before {
        return None;
    }
    let made = files(config, seed).and_then(|files| volume(&files));
    made.map_err(|e| problems.push(Problem::new("host.seed", format!("cannot be made: {e}"))))
        .ok()
}

fn files(config: &VmConfig, seed: &Seed) -> io::Result<[(&'static str, String); 3]> {
    let user_data = yaml(&user_data(seed))?;
    Ok([
        ("meta-data", yaml(&meta_data(seed))?),
        ("user-data", format!("#cloud-config\n{user_data}")),
        (
            "network-config",
            yaml(&network(&config.network_interfaces))?,
        ),
    ])
}

fn meta_data(seed: &Seed) -> MetaData<'_> {
    MetaData {
        instance_id: &seed.instance_id,
        local_hostname: seed.hostname.as_deref(),
    }
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct MetaData<'a> {
    instance_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    local_hostname: Option<&'a str>,
}

/// cloud-init's "Cloud config".
#[derive(Serialize)]
struct UserData<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fqdn: Option<&'a str>,
    preserve_hostname: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    users: Option<[User<'a>; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh_authorized_keys: Option<&'a [String]>,
}

#[derive(Serialize)]
struct User<'a> {
    name: &'a str,
    shell: &'a str,
    sudo: &'a str,
    lock_passwd: bool,
    ssh_authorized_keys: &'a [String],
}

fn user_data(seed: &Seed) -> UserData<'_> {
    let name = seed.hostname.as_deref();
    let keys = seed.ssh_authorized_keys.as_slice();
    UserData {
        hostname: name.and_then(|name| name.split('.').next()),
        fqdn: name.filter(|name| name.contains('.')),
        preserve_hostname: name.is_none(),
        users: seed.user.as_deref().map(|name| {
            [User {
                name,
                shell: "/bin/bash",
                sudo: "ALL=(ALL) NOPASSWD:ALL",
                lock_passwd: true,
                ssh_authorized_keys: keys,
            }]
        }),
        ssh_authorized_keys: (seed.user.is_none() && !keys.is_empty()).then_some(keys),
    }
}

/// cloud-init's "Networking config version 2".
#[derive(Serialize)]
struct Network {
    version: u32,
    ethernets: BTreeMap<String, Card>,
}

#[derive(Serialize)]
struct Card {
    r#match: Match,
    #[serde(rename = "set-name")]
    set_name: String,
    dhcp4: bool,
    #[serde(rename = "accept-ra", skip_serializing_if = "Option::is_none")]
    accept_ra: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<IpNet>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway4: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway6: Option<IpAddr>,
    /// Routes by further gateways.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    routes: Vec<Route>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nameservers: Option<NameServers>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mtu: Option<u16>,
}

#[derive(Serialize)]
struct Match {
    macaddress: Option<String>,
}

#[derive(Serialize)]
struct Route {
    to: &'static str,
    via: IpAddr,
}

#[derive(Serialize)]
struct NameServers {
    addresses: Vec<IpAddr>,
}

fn network(interfaces: &[NetworkInterface]) -> Network {
    let cards = interfaces.iter().enumerate().map(|(i, interface)| {
        let name = format!("eth{i}");
        (name.clone(), card(name, interface))
    });
    Network {
        version: 2,
        ethernets: cards.collect(),
    }
}

fn card(name: String, interface: &NetworkInterface) -> Card {
    let host = interface.host.clone().unwrap_or_default();
    let mut gateways = host.gateways();
    // Debian 12's cloud-init reads a route to ::/0 as one to ::/64.
    let mut first = |v4: bool| {
        let at = gateways.iter().position(|gateway| gateway.is_ipv4() == v4);
        at.map(|at| gateways.remove(at))
    };
    let (gateway4, gateway6) = (first(true), first(false));
    let nameservers = Some(host.nameservers).filter(|all| !all.is_empty());
    // The guard would drop packets from an advertised IPv6 prefix, and the guest would wait for it at each boot.
    let only_v4 =
        !host.addresses.is_empty() && host.addresses.iter().all(|one| one.addr().is_ipv4());
    Card {
        accept_ra: (host.spoof_guard && only_v4).then_some(false),
        r#match: Match {
            macaddress: interface.guest_mac.map(|mac| mac.to_string()),
        },
        set_name: name,
        dhcp4: host.addresses.is_empty(),
        gateway4,
        gateway6,
        routes: gateways.into_iter().map(route).collect(),
        addresses: host.addresses,
        nameservers: nameservers.map(|addresses| NameServers { addresses }),
        mtu: interface.mtu,
    }
}

fn route(via: IpAddr) -> Route {
    let to = match via {
        IpAddr::V4(_) => "0.0.0.0/0",
        IpAddr::V6(_) => "::/0",
    };
    Route { to, via }
}

/// Returns `value` as YAML 1.1. Some readers take certain characters for line ends or refuse others unless they are
/// escaped. Unlike JSON, YAML does not join two escapes to one character.
fn yaml(value: &impl Serialize) -> Result<String, serde_json::Error> {
    let mut text = String::new();
    for c in serde_json::to_string(value)?.chars() {
        match u32::from(c) {
            code @ 0x7f..=0xffff => text.extend(format!("\\u{code:04x}").chars()),
            _ => text.push(c),
        }
    }
    Ok(text)
}

fn volume(files: &[(&str, String)]) -> io::Result<Vec<u8>> {
    let mut bytes = Cursor::new(vec![0; SIZE]);
    let options = FormatVolumeOptions::new()
        .volume_label(*b"CIDATA     ")
        .volume_id(SERIAL)
        .fat_type(FatType::Fat12);
    format_volume(&mut bytes, options)?;
    let system = FileSystem::new(&mut bytes, FsOptions::new())?;
    for (name, text) in files {
        system
            .root_dir()
            .create_file(name)?
            .write_all(text.as_bytes())?;
    }
    system.unmount()?;
    Ok(bytes.into_inner())
}

#[cfg(test)]
#[path = "seed_test.rs"]
mod seed_test;
