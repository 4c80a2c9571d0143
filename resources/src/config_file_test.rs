use super::*;
use crate::sections::drive::CacheType;
use crate::sections::network::MacAddress;

fn parse(text: &str) -> Result<Loaded, String> {
    VmConfig::from_json(Path::new("vm.json"), text.as_bytes()).map_err(|e| e.to_string())
}

/// A configuration with `drives` and one more section.
fn with(section: &str) -> String {
    let comma = if section.is_empty() { "" } else { "," };
    format!(r#"{{"boot-source":{{"kernel_image_path":"k"}},"drives":[]{comma}{section}}}"#)
}

fn refused(text: &str, expected: &[&str]) {
    let message = parse(text).expect_err(text);
    assert!(message.starts_with("vm.json:"), "{message}");
    for part in expected {
        assert!(message.contains(part), "`{part}` is not in: {message}");
    }
}

#[test]
fn the_smallest_configuration_has_the_defaults_of_firecracker() {
    let loaded = parse(&with("")).unwrap();
    assert_eq!(loaded.config.machine_config, MachineConfig::default());
    assert_eq!(loaded.config.machine_config.mem_bytes(), 128 << 20);
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_file_of_a_firecracker_client_is_accepted() {
    let loaded = parse(
        r#"{"boot-source":{"kernel_image_path":"k","boot_args":"console=ttyS0","initrd_path":null},
        "drives":[{"drive_id":"rootfs","is_root_device":true,"partuuid":null,"cache_type":"Unsafe",
          "is_read_only":null,"path_on_host":"r.ext4","rate_limiter":null,"io_engine":null,"socket":null}],
        "machine-config":{"vcpu_count":2,"mem_size_mib":256,"smt":true,"track_dirty_pages":false,"huge_pages":"None"},
        "network-interfaces":[{"iface_id":"eth0","guest_mac":"06:00:AC:10:00:02","host_dev_name":"tap0",
          "rx_rate_limiter":{},"tx_rate_limiter":{"bandwidth":{"size":0,"refill_time":0}}}],
        "entropy":{}, "logger":{"log_path":"x","level":"warning"},
        "metrics":{"metrics_path":"m"}, "balloon":{"amount_mib":1,"deflate_on_oom":true},
        "vsock":{"vsock_id":"v","guest_cid":3,"uds_path":"v.sock"}, "cpu-config":{}, "pmem":null,
        "mmds-config":{"network_interfaces":["eth0"],"version":"V2","ipv4_address":null}}"#,
    )
    .unwrap();
    assert_eq!(loaded.config.drives[0].cache_type, CacheType::Unsafe);
    assert_eq!(
        loaded.config.network_interfaces[0].guest_mac,
        Some(MacAddress([6, 0, 0xac, 0x10, 0, 2]))
    );
    assert_eq!(
        loaded.config.logger.unwrap().level,
        Some(crate::Level::Warn)
    );
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
}

#[test]
fn a_serialized_configuration_parses_to_the_same() {
    let text = with(
        r#""network-interfaces":[{"iface_id":"n","host_dev_name":"t0","guest_mac":"06:00:ac:10:00:02","bridge":"br0"}],
        "machine-config":{"vcpu_count":3,"mem_size_mib":64,"i8042":false}"#,
    );
    let config = parse(&text).unwrap().config;
    let again = parse(&serde_json::to_string(&config).unwrap()).unwrap();
    assert_eq!(again.config, config);
}

#[test]
fn errors_in_json_name_the_file_and_the_position() {
    refused("{", &["line 1", "ends early"]);
    refused(r#"{"drives": [],}"#, &["trailing comma"]);
    refused(&format!("{} x", with("")), &["trailing characters"]);
    refused("", &["ends early"]);
    refused("[]", &["(file)"]);
}

#[test]
fn an_error_names_a_missing_section() {
    refused("{}", &["drives"]);
    refused(r#"{"drives":[]}"#, &["boot-source"]);
    refused(
        r#"{"boot-source":{},"drives":[]}"#,
        &["boot-source", "kernel_image_path"],
    );
}

#[test]
fn errors_name_keys_of_wrong_type_and_unknown_keys() {
    refused(
        r#"{"boot-source":{"kernel_image_path":"k"},"drives":[{"drive_id":"a","is_root_device":"yes"}]}"#,
        &["drives[0].is_root_device", "expected a boolean", "line 1"],
    );
    refused(
        r#"{"boot-source":{"kernel_image_path":"k","kernel":"x"},"drives":[]}"#,
        &["boot-source.kernel", "unknown field", "initrd_path"],
    );
    refused(
        &with(r#""machine-config":{"vcpu_count":300,"mem_size_mib":64}"#),
        &["machine-config.vcpu_count", "300"],
    );
    refused(
        &with(r#""network-interfaces":[{"iface_id":"n","host_dev_name":"t","guest_mac":"1:2"}]"#),
        &["network-interfaces[0].guest_mac", "06:00:ac:10:00:02"],
    );
}

#[test]
fn an_unknown_section_is_a_warning_and_an_unsupported_one_an_error() {
    let loaded = parse(&with(r#""future": {"a": 1}"#)).unwrap();
    assert_eq!(
        loaded.warnings,
        ["vm.json: future: unknown section, ignored"]
    );
    for (section, value) in [
        ("pmem", r#"[{"id":"p","path_on_host":"/x"}]"#),
        ("memory-hotplug", r#"{"total_size_mib":256}"#),
        ("cpu-config", r#"{"kvm_capabilities":["1"]}"#),
        ("cpu-config", r#""template.json""#),
    ] {
        refused(
            &with(&format!(r#""{section}":{value}"#)),
            &[section, "not supported"],
        );
    }
}

#[test]
fn all_values_out_of_range_are_reported_together() {
    refused(
        r#"{"boot-source":{"kernel_image_path":""},
        "drives":[{"drive_id":"a b","is_root_device":true,"path_on_host":"x"},
                  {"drive_id":"c","is_root_device":true},
                  {"drive_id":"c","is_root_device":false,"path_on_host":"","size_mib":0,"partuuid":"u"}],
        "machine-config":{"vcpu_count":0,"mem_size_mib":31},
        "network-interfaces":[{"iface_id":"n","host_dev_name":"averylongdevicename","mtu":67,"guest_mac":"01:00:00:00:00:00"},
                              {"iface_id":"n","host_dev_name":"t","tap_fd":1}]}"#,
        &[
            "boot-source.kernel_image_path",
            "drives[0].drive_id",
            "drives[1].path_on_host: is missing",
            "drives[2].drive_id",
            "drives[2].path_on_host: is empty",
            "drives[2].size_mib",
            "drives[2].partuuid",
            "drives[1].is_root_device",
            "machine-config.vcpu_count: is 0: must be from 1 to 32",
            "machine-config.mem_size_mib: is 31",
            "network-interfaces[0].host_dev_name",
            "network-interfaces[0].mtu",
            "network-interfaces[0].guest_mac",
            "network-interfaces[1].iface_id",
            "network-interfaces[1].tap_fd",
        ],
    );
    refused(
        &with(
            r#""network-interfaces":[{"iface_id":"a","host_dev_name":"t","guest_mac":"06:00:00:00:00:01","tap_fd":3},
                {"iface_id":"b","host_dev_name":"t","guest_mac":"06:00:00:00:00:01","tap_fd":3}]"#,
        ),
        &[
            "network-interfaces[1].guest_mac: `06:00:00:00:00:01` is already used by the interface `a`",
            "network-interfaces[1].host_dev_name: `t` is already used by the interface `a`",
            "network-interfaces[1].tap_fd: is already used by the interface `a`",
        ],
    );
    refused(
        &with(r#""machine-config":{"vcpu_count":33,"mem_size_mib":64}"#),
        &["is 33"],
    );
    refused(
        &with(r#""machine-config":{"vcpu_count":3,"mem_size_mib":64,"smt":true}"#),
        &["even"],
    );
}

#[test]
fn an_error_names_an_unreadable_file() {
    let error = VmConfig::from_file(Path::new("/nonexistent/vm.json")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/vm.json"));
    let error = VmConfig::from_file(Path::new("/dev/zero")).unwrap_err();
    assert!(matches!(error, ConfigError::TooLarge { .. }));
}

#[test]
fn the_examples_are_valid() {
    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let loaded = VmConfig::from_file(&entry.unwrap().path()).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        for drive in loaded.config.drives.iter().filter(|d| !d.is_read_only) {
            assert_eq!(drive.cache_type, CacheType::Writeback);
        }
        seen += 1;
    }
    assert!(seen >= 3);
}
