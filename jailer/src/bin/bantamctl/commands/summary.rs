//! The summary of a guest that `bantamctl create` prints before it makes the guest.

use crate::guests::options;
use crate::size::gib;
use jailer::error::warn;
use jailer::sys::dir::Owner;
use resources::VmConfig;
use std::fmt::Write as _;

/// Returns a line for each property of the guest, defaults included.
pub fn summary(name: &str, config: &VmConfig, autostart: bool, owner: Owner) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| {
        let _ = writeln!(text, "{key:<10} {value}");
    };
    line("name", name.into());
    line(
        "memory",
        format!("{} MiB", config.machine_config.mem_size_mib),
    );
    line("vcpus", config.machine_config.vcpu_count.to_string());
    let boot = &config.boot_source;
    line(
        "boot",
        match &boot.image_drive {
            Some(id) => format!("the kernel in the image of drive {id}"),
            None => boot.kernel_image_path.display().to_string(),
        },
    );
    if let Some(args) = &boot.boot_args {
        line("boot args", args.clone());
    }
    for drive in &config.drives {
        let place = drive.path_on_host.clone().unwrap_or_default();
        let place = match &drive.pool {
            Some(pool) => format!("volume {} of pool {pool}", place.display()),
            None => place.display().to_string(),
        };
        let size = drive.size_mib.map(|mib| format!(", {}", gib(mib << 20)));
        let from = drive.template.as_ref();
        let from = from.map(|from| format!(", copy of {}", from.display()));
        line(
            "disk",
            format!(
                "{}: {place}{}{}, cache {:?}{}",
                drive.drive_id,
                size.unwrap_or_default(),
                from.unwrap_or_default(),
                drive.cache_type,
                if drive.is_read_only {
                    ", read-only"
                } else {
                    ""
                }
            ),
        );
    }
    for interface in &config.network_interfaces {
        let host = interface.host.clone().unwrap_or_default();
        let addresses: Vec<_> = host.addresses.iter().map(ToString::to_string).collect();
        line(
            "network",
            format!(
                "{}: tap {} on {}, MAC {}{}",
                interface.iface_id,
                interface.host_dev_name,
                interface.bridge.clone().unwrap_or_default(),
                interface
                    .guest_mac
                    .map(|mac| mac.to_string())
                    .unwrap_or_default(),
                match addresses.is_empty() {
                    true => String::new(),
                    false => format!(", {}", addresses.join(", ")),
                }
            ),
        );
    }
    if config.network_interfaces.is_empty() {
        line("network", "none (--network bridge=br0)".into());
    }
    if let Some(seed) = config.host.as_ref().and_then(|host| host.seed.as_ref()) {
        line(
            "seed",
            format!(
                "host name {}, {} keys",
                seed.hostname.clone().unwrap_or_default(),
                seed.ssh_authorized_keys.len()
            ),
        );
    }
    line(
        "runs as",
        format!("user {}, group {}", owner.uid, owner.gid),
    );
    line("autostart", if autostart { "yes" } else { "no" }.into());
    text.truncate(text.trim_end().len());
    if options::default_monitor().is_ok_and(|path| !path.exists())
        && config
            .host
            .as_ref()
            .is_some_and(|host| host.exec_file.is_none())
    {
        warn("there is no monitor `bantam` beside this program: name it with --exec-file");
    }
    text
}
