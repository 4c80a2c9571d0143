use super::*;
use serde_json::{Value, json};
use std::io::Read as _;
use std::path::Path;

fn config(text: &str) -> VmConfig {
    let path = Path::new("vm.json");
    VmConfig::from_json(path, text.as_bytes()).unwrap().config
}

fn full() -> VmConfig {
    config(
        r#"{"boot-source":{"kernel_image_path":"k"},"drives":[],
        "network-interfaces":[
            {"iface_id":"a","host_dev_name":"tap0","bridge":"br0","guest_mac":"06:00:0a:58:00:05","mtu":1400,
             "host":{"bridge_addresses":["10.88.0.1/24","fd00:88::1/64"],
                     "addresses":["10.88.0.5/24","fd00:88::5/64"],"nameservers":["9.9.9.9"]}},
            {"iface_id":"b","host_dev_name":"tap1","guest_mac":"06:00:0a:58:00:06"}],
        "host":{"seed":{"instance_id":"i-1: \"x\" \u00e9\u2028\ud83d\ude00","hostname":"web.example.org",
                        "user":"op","ssh_authorized_keys":["ssh-ed25519 AAAA \"a: #b\""]}}}"#,
    )
}

fn files(volume: &[u8]) -> Vec<(String, String)> {
    let system = FileSystem::new(Cursor::new(volume.to_vec()), FsOptions::new()).unwrap();
    assert_eq!(system.volume_label(), "CIDATA");
    let label = system.read_volume_label_from_root_dir().unwrap();
    assert_eq!(label.as_deref(), Some("CIDATA"));
    let root = system.root_dir();
    root.iter()
        .map(|entry| {
            let entry = entry.unwrap();
            let mut text = String::new();
            entry.to_file().read_to_string(&mut text).unwrap();
            (entry.file_name(), text)
        })
        .collect()
}

fn parsed(text: &str) -> Value {
    serde_json::from_str(text.trim_start_matches("#cloud-config\n")).unwrap()
}

#[test]
fn the_seed_has_the_guest_s_name_keys_and_addresses() {
    let mut problems = Vec::new();
    let volume = make(&full(), &mut problems).unwrap();
    assert!(problems.is_empty());
    let files = files(&volume);
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["meta-data", "user-data", "network-config"]);
    let [meta, user, network] = [0, 1, 2].map(|i| parsed(&files[i].1));
    assert_eq!(meta["local-hostname"], "web.example.org");
    assert!(files[1].1.starts_with("#cloud-config\n"));
    assert_eq!(
        (&user["hostname"], &user["fqdn"]),
        (&json!("web"), &json!("web.example.org"))
    );
    assert_eq!(user["users"][0]["name"], "op");
    let keys = &user["users"][0]["ssh_authorized_keys"];
    assert_eq!(*keys, json!(["ssh-ed25519 AAAA \"a: #b\""]));
    let expected = json!({"version": 2, "ethernets": {
        "eth0": {"match": {"macaddress": "06:00:0a:58:00:05"}, "set-name": "eth0", "mtu": 1400,
                 "dhcp4": false, "addresses": ["10.88.0.5/24", "fd00:88::5/64"],
                 "gateway4": "10.88.0.1", "gateway6": "fd00:88::1",
                 "nameservers": {"addresses": ["9.9.9.9"]}},
        "eth1": {"match": {"macaddress": "06:00:0a:58:00:06"}, "set-name": "eth1", "dhcp4": true}}});
    assert_eq!(network, expected);
    assert_eq!(make(&full(), &mut problems), Some(volume));
}

#[test]
fn characters_with_a_meaning_in_yaml_are_escaped() {
    let mut config = full();
    let seed = config.host.as_mut().unwrap().seed.as_mut().unwrap();
    let id = "\u{85}\u{2028}\u{feff}\u{fffe}\u{7f}é😀\\ \" ' # : {";
    seed.instance_id = id.into();
    let volume = make(&config, &mut Vec::new()).unwrap();
    let text = &files(&volume)[0].1;
    assert!(
        text.chars().all(|c| matches!(c, ' '..='~' | '\u{10000}'..)),
        "{text}"
    );
    assert_eq!(parsed(text)["instance-id"], id);
}

#[test]
fn keys_without_a_user_are_for_the_default_user() {
    let mut config = full();
    let seed = config.host.as_mut().unwrap().seed.as_mut().unwrap();
    (seed.user, seed.hostname) = (None, None);
    let user = serde_json::to_value(user_data(seed)).unwrap();
    assert_eq!(
        user,
        json!({"preserve_hostname": true, "ssh_authorized_keys": ["ssh-ed25519 AAAA \"a: #b\""]})
    );
    seed.ssh_authorized_keys.clear();
    let user = serde_json::to_value(user_data(seed)).unwrap();
    assert_eq!(user, json!({"preserve_hostname": true}));
}

#[test]
fn further_gateways_become_routes() {
    let mut config = full();
    let host = config.network_interfaces[0].host.as_mut().unwrap();
    host.gateways = ["fd00:88::1", "10.88.0.1", "10.88.0.2"]
        .map(|text| text.parse().unwrap())
        .into();
    let network = serde_json::to_value(network(&config.network_interfaces)).unwrap();
    let card = &network["ethernets"]["eth0"];
    assert_eq!(card["gateway6"], "fd00:88::1");
    assert_eq!(card["gateway4"], "10.88.0.1");
    assert_eq!(
        card["routes"],
        json!([{"to": "0.0.0.0/0", "via": "10.88.0.2"}])
    );
}

#[test]
fn a_guarded_ipv4_guest_ignores_ipv6_routers() {
    let mut config = full();
    let mut accept_ra = |change: fn(&mut resources::HostNetwork)| {
        change(config.network_interfaces[0].host.as_mut().unwrap());
        let network = serde_json::to_value(network(&config.network_interfaces)).unwrap();
        network["ethernets"]["eth0"]["accept-ra"].clone()
    };
    assert_eq!(accept_ra(|host| host.spoof_guard = true), Value::Null);
    assert_eq!(accept_ra(|host| host.addresses.truncate(1)), json!(false));
    assert_eq!(accept_ra(|host| host.spoof_guard = false), Value::Null);
}

#[test]
fn missing_keys_are_named() {
    let mut config = full();
    config.network_interfaces[1].guest_mac = None;
    config.drives.push(resources::Drive {
        drive_id: "seed".into(),
        ..Default::default()
    });
    let mut problems = Vec::new();
    assert_eq!(make(&config, &mut problems), None);
    let keys: Vec<_> = problems.iter().map(|p| p.key.as_str()).collect();
    assert_eq!(
        keys,
        ["network-interfaces[1].guest_mac", "drives[0].drive_id"]
    );
    config.host = None;
    assert_eq!(make(&config, &mut problems), None);
    assert_eq!(problems.len(), 2);
}
