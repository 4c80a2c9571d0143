//! firecracker-rs-sdk boots a guest with a disk, a tap, vsock, a balloon and metadata, reads back what it configured, pauses and
//! resumes the guest, changes its disk, and makes it reset itself.
//!
//! usage: firecracker-rs-sdk-drive MONITOR KERNEL DISK DIRECTORY     (as root: the tap is made)

use firecracker_rs_sdk::Result;
use firecracker_rs_sdk::firecracker::FirecrackerOption;
use firecracker_rs_sdk::models::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Bound of all waiting.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for(log: &Path, text: &str, after: usize) {
    let started = Instant::now();
    loop {
        let said = fs::read_to_string(log).unwrap_or_default();
        if said.get(after..).is_some_and(|said| said.contains(text)) {
            return;
        }
        assert!(started.elapsed() < PATIENCE, "no {text:?} in {said}");
        sleep(Duration::from_millis(50));
    }
}

fn ticks(log: &Path) -> usize {
    fs::read_to_string(log)
        .unwrap_or_default()
        .matches("tick ")
        .count()
}

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [monitor, kernel, disk, directory] = arguments.as_slice() else {
        panic!("usage: firecracker-rs-sdk-drive MONITOR KERNEL DISK DIRECTORY");
    };
    let tap = Command::new("ip")
        .args(["tuntap", "add", "tap0", "mode", "tap"])
        .status()?;
    assert!(tap.success());
    let console = directory.join("console");
    let mut guest = FirecrackerOption::new(monitor)
        .api_sock(directory.join("api.sock"))
        .id("web1")
        .stdin("/dev/null")
        .stdout(&console)
        .build()?;
    guest.start_vmm()?;

    let version = guest.get_firecracker_version()?;
    println!("{version:?}");
    guest.put_machine_configuration(&MachineConfiguration {
        cpu_template: None,
        smt: Some(false),
        mem_size_mib: 128,
        track_dirty_pages: Some(false),
        vcpu_count: 1,
        huge_pages: None,
    })?;
    guest.put_guest_boot_source(&BootSource {
        boot_args: Some("console=ttyS0 reboot=k panic=1 pci=off".into()),
        initrd_path: None,
        kernel_image_path: kernel.clone(),
    })?;
    guest.put_guest_drive_by_id(&Drive {
        drive_id: "rootfs".into(),
        partuuid: None,
        is_root_device: true,
        cache_type: Some(CacheType::Unsafe),
        is_read_only: false,
        path_on_host: disk.clone(),
        rate_limiter: None,
        io_engine: Some(IoEngine::Async),
        socket: None,
    })?;
    guest.put_guest_network_interface_by_id(&NetworkInterface {
        guest_mac: Some("06:00:0a:58:00:02".into()),
        host_dev_name: "tap0".into(),
        iface_id: "eth0".into(),
        rx_rate_limiter: None,
        tx_rate_limiter: None,
    })?;
    guest.put_mmds_config(&MmdsConfig {
        version: Some(MmdsConfigVersion::V2),
        ipv4_address: None,
        network_interfaces: vec!["eth0".into()],
    })?;
    guest.put_guest_vsock(&Vsock {
        guest_cid: 3,
        uds_path: directory.join("vsock.sock"),
        vsock_id: None,
    })?;
    guest.put_balloon(&Balloon {
        amount_mib: 0,
        deflate_on_oom: true,
        stats_polling_interval_s: Some(1),
    })?;
    guest.put_entropy_device(&EntropyDevice { rate_limiter: None })?;
    assert_eq!(guest.describe_instance()?.state, InstanceState::NotStarted);

    guest.start()?;
    wait_for(&console, "tick 0000", 0);
    let instance = guest.describe_instance()?;
    assert_eq!(
        (instance.state, instance.id.as_str()),
        (InstanceState::Running, "web1")
    );
    assert_eq!(guest.get_machine_configuration()?.mem_size_mib, 128);
    let config = guest.get_export_vm_config()?;
    assert_eq!(config.network_interfaces.map_or(0, |list| list.len()), 1);
    assert!(config.vsock.is_some() && config.balloon.is_some() && config.mmds_config.is_some());
    assert_eq!(guest.describe_balloon_stats()?.target_mib, 0);

    guest.pause()?;
    sleep(Duration::from_millis(200));
    let before = ticks(&console);
    sleep(Duration::from_millis(500));
    assert_eq!(ticks(&console), before, "a paused guest goes on");
    assert_eq!(guest.describe_instance()?.state, InstanceState::Paused);
    guest.resume()?;
    wait_for(&console, "tick ", fs::read_to_string(&console)?.len());

    guest.patch_guest_drive_by_id(&PartialDrive {
        drive_id: "rootfs".into(),
        path_on_host: Some(disk.clone()),
        rate_limiter: None,
    })?;
    guest.stop()?;
    wait_for(&console, "Firecracker exiting successfully", 0);
    Ok(())
}
