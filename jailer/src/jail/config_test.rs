use super::*;
use std::path::Path;

#[test]
fn paths_are_the_jail_s_and_the_host_s_keys_are_removed() {
    let text = br#"{"boot-source":{"kernel_image_path":"/boot/vmlinuz","initrd_path":"i","boot_args":"a b"},
        "drives":[{"drive_id":"root","is_root_device":true,"path_on_host":"../r.img","size_mib":7,
                   "template":"/t","is_read_only":true,"cache_type":"Writeback","discard":true},
                  {"drive_id":"data","is_root_device":false,"path_on_host":"/dev/vg/lv"}],
        "machine-config":{"vcpu_count":3,"mem_size_mib":99},
        "network-interfaces":[{"iface_id":"a","host_dev_name":"tap0","bridge":"br0","mtu":1400},
                              {"iface_id":"b","host_dev_name":"tap1"}],
        "entropy":{}, "balloon":{"amount_mib":1,"deflate_on_oom":true},
        "vsock":{"guest_cid":3,"uds_path":"/v.sock"}, "logger":{"log_path":"/log"},
        "metrics":{"metrics_path":"/metrics"}, "serial":{"socket":"/console"},
        "mmds-config":{"network_interfaces":["a"]}}"#;
    let before = VmConfig::from_json(Path::new("vm.json"), text)
        .unwrap()
        .config;
    let after = jailed(before.clone(), &[7, 9], None);
    assert!(after.problems().is_empty());

    assert_eq!(after.boot_source.kernel_image_path, Path::new("/kernel"));
    assert_eq!(after.boot_source.initrd_path, Some("/initrd".into()));
    assert_eq!(after.boot_source.boot_args, before.boot_source.boot_args);
    assert_eq!(after.machine_config, before.machine_config);
    assert_eq!(after.entropy, before.entropy);
    assert_eq!(after.balloon, before.balloon);
    assert_eq!(after.vsock, before.vsock, "the jail's paths already");
    assert_eq!(after.logger, before.logger);
    assert_eq!(after.metrics, before.metrics);
    assert_eq!(after.serial, before.serial);
    assert_eq!(after.mmds_config, before.mmds_config);
    assert_eq!(after.drives[0].path_on_host, Some("/drives/root".into()));
    assert_eq!(after.drives[1].path_on_host, Some("/drives/data".into()));
    assert_eq!(after.drives[0].size_mib, None);
    assert_eq!(after.drives[0].template, None);
    assert!(after.drives[0].is_read_only && after.drives[0].discard);
    let taps: Vec<_> = after.network_interfaces.iter().map(|n| n.tap_fd).collect();
    assert_eq!(taps, [Some(7), Some(9)]);
    assert_eq!(after.network_interfaces[0].bridge, None);
    assert_eq!(after.network_interfaces[0].mtu, Some(1400));
}

#[test]
fn absent_sections_stay_absent() {
    let text = br#"{"boot-source":{"kernel_image_path":"k"},"drives":[]}"#;
    let before = VmConfig::from_json(Path::new("vm.json"), text)
        .unwrap()
        .config;
    let after = jailed(before, &[], None);
    assert_eq!(after.boot_source.initrd_path, None);
    assert!(after.drives.is_empty() && after.network_interfaces.is_empty());
}

#[test]
fn the_kernel_in_an_image_replaces_the_configured_one() {
    let text = br#"{"boot-source":{"image_drive":"root","boot_args":"quiet"},
        "drives":[{"drive_id":"data","is_root_device":false,"path_on_host":"d"},
                  {"drive_id":"root","is_root_device":true,"path_on_host":"r","partuuid":"a-1"}]}"#;
    let before = VmConfig::from_json(Path::new("vm.json"), text)
        .unwrap()
        .config;
    let mut found = Found {
        command_line: "root=UUID=1 ro".into(),
        initrd: true,
    };
    let after = jailed(before.clone(), &[], Some(&found));
    assert!(after.problems().is_empty() && after.jailers().is_empty());
    let boot = &after.boot_source;
    assert_eq!(boot.kernel_image_path, Path::new("/kernel"));
    assert_eq!(boot.initrd_path, Some("/initrd".into()));
    let line = "root=UUID=1 ro quiet console=ttyS0";
    assert_eq!(boot.boot_args.as_deref(), Some(line));
    // The monitor would add a root device after the one of the image.
    let drives = after.drives.iter();
    let drives: Vec<_> = drives
        .map(|d| (d.drive_id.as_str(), d.is_root_device, &d.partuuid))
        .collect();
    assert_eq!(drives, [("root", false, &None), ("data", false, &None)]);

    found.command_line = "console=hvc0".into();
    found.initrd = false;
    let after = jailed(before, &[], Some(&found));
    assert_eq!(after.boot_source.initrd_path, None);
    let line = after.boot_source.boot_args;
    assert_eq!(line.as_deref(), Some("console=hvc0 quiet"));
    assert!(after.drives[1].is_root_device);
}

#[test]
fn the_seed_is_the_last_drive_and_read_only() {
    let text = br#"{"boot-source":{"kernel_image_path":"k"},
        "drives":[{"drive_id":"root","is_root_device":true,"path_on_host":"r"}],
        "host":{"seed":{"instance_id":"i"}}}"#;
    let before = VmConfig::from_json(Path::new("vm.json"), text)
        .unwrap()
        .config;
    let after = jailed(before, &[], None);
    assert!(after.problems().is_empty() && after.jailers().is_empty());
    let seed = after.drives.last().unwrap();
    assert_eq!((seed.drive_id.as_str(), seed.is_read_only), ("seed", true));
    assert_eq!(seed.path_on_host, Some("/drives/seed".into()));
}
