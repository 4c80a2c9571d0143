//! The seed: a small FAT volume labelled `CIDATA` on which cloud-init finds the guest's name, keys and addresses
//! (its data source NoCloud). The same guest gets the same bytes.
//!
//! Its files are YAML; they are written as JSON, which is YAML but for the characters that [`yaml`] escapes.

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions, format_volume};
use resources::{HostNetwork, NetworkInterface, Problem, Seed, VmConfig};
use serde_json::{Map, Value, json};
use std::io::{self, Cursor, Write as _};
use std::net::IpAddr;

/// The drive that the guest has it on.
pub const DRIVE: &str = "seed";
/// Its size, in bytes: a configuration file has less in it, and FAT needs some.
const SIZE: usize = 4 << 20;
/// Its serial number: any; that of the same seed is the same.
const SERIAL: u32 = 0xba17_a300;

/// The seed of the guest that `config` describes, if it is to have one; else what is wrong is among `problems`.
pub fn make(config: &VmConfig, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let seed = config.host.as_ref()?.seed.as_ref()?;
    let before = problems.len();
    for (i, interface) in config.network_interfaces.iter().enumerate() {
        if interface.guest_mac.is_none() {
            let message = "is missing: with `host.seed`, the guest knows its interfaces by their addresses; \
                           write one as 06:00:ac:10:00:02";
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
    let user_data = format!("#cloud-config\n{}", yaml(&user_data(seed)));
    let files = [
        ("meta-data", yaml(&meta_data(seed))),
        ("user-data", user_data),
        ("network-config", yaml(&network(&config.network_interfaces))),
    ];
    let made = volume(&files);
    made.map_err(|e| problems.push(Problem::new("host.seed", format!("cannot be made: {e}"))))
        .ok()
}

fn meta_data(seed: &Seed) -> Value {
    let mut data = json!({"instance-id": seed.instance_id});
    if let Some(name) = &seed.hostname {
        data["local-hostname"] = json!(name);
    }
    data
}

fn user_data(seed: &Seed) -> Value {
    let mut data = Map::new();
    if let Some(name) = &seed.hostname {
        let short = name.split('.').next();
        data.insert("hostname".into(), json!(short));
        if name.contains('.') {
            data.insert("fqdn".into(), json!(name));
        }
        data.insert("preserve_hostname".into(), json!(false));
    }
    let keys = &seed.ssh_authorized_keys;
    match &seed.user {
        Some(user) => {
            let user = json!({
                "name": user, "shell": "/bin/bash", "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "lock_passwd": true, "ssh_authorized_keys": keys,
            });
            data.insert("users".into(), json!([user]));
        }
        None if keys.is_empty() => {}
        None => drop(data.insert("ssh_authorized_keys".into(), json!(keys))),
    }
    data.into()
}

/// `value` for readers of YAML 1.1: some take a part of Unicode for ends of lines and some refuse another, unless it
/// is escaped; and they do not join two escapes to one character, as JSON does.
fn yaml(value: &Value) -> String {
    let mut text = String::new();
    for c in value.to_string().chars() {
        match u32::from(c) {
            code @ 0x7f..=0xffff => text.push_str(&format!("\\u{code:04x}")),
            _ => text.push(c),
        }
    }
    text
}

/// cloud-init's "Networking config version 2".
fn network(interfaces: &[NetworkInterface]) -> Value {
    let plain = HostNetwork::default();
    let mut ethernets = Map::new();
    for (i, interface) in interfaces.iter().enumerate() {
        let name = format!("eth{i}");
        let host = interface.host.as_ref().unwrap_or(&plain);
        let mac = interface.guest_mac.map(|mac| mac.to_string());
        let mut card = json!({"match": {"macaddress": mac}, "set-name": name});
        if host.addresses.is_empty() {
            card["dhcp4"] = json!(true);
        } else {
            card["addresses"] = json!(host.addresses);
            card["dhcp4"] = json!(false);
            card["dhcp6"] = json!(false);
        }
        let routes: Vec<_> = host.gateways().into_iter().map(route).collect();
        for (key, values) in [
            ("routes", json!(routes)),
            ("nameservers", json!(host.nameservers)),
        ] {
            if values.as_array().is_some_and(|all| !all.is_empty()) {
                card[key] = match key {
                    "nameservers" => json!({"addresses": values}),
                    _ => values,
                };
            }
        }
        if let Some(mtu) = interface.mtu {
            card["mtu"] = json!(mtu);
        }
        ethernets.insert(name, card);
    }
    json!({"version": 2, "ethernets": ethernets})
}

fn route(gateway: IpAddr) -> Value {
    let all = match gateway {
        IpAddr::V4(_) => "0.0.0.0/0",
        IpAddr::V6(_) => "::/0",
    };
    json!({"to": all, "via": gateway})
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
