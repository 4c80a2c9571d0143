//! The configuration that the monitor reads in its jail: paths are the jail's, taps are descriptors, and the host's
//! part is left out.

use crate::image::Found;
use crate::jail::layout::{DRIVES, INITRD, KERNEL};
use crate::jail::seed;
use resources::{BootSource, Drive, NetworkInterface, VmConfig};
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Rewrites `config` for the jail. `taps` are the descriptors of its interfaces, in order, and `found` was found in its
/// image.
pub fn jailed(config: VmConfig, taps: &[RawFd], found: Option<&Found>) -> VmConfig {
    let BootSource {
        kernel_image_path: _,
        initrd_path,
        boot_args,
        image_drive: _,
    } = config.boot_source;
    let initrd = found.map_or(initrd_path.is_some(), |found| found.initrd);
    let mut drives: Vec<_> = config.drives.into_iter().map(drive).collect();
    if found.is_some_and(Found::names_root) {
        // The image's command line names its root. A root device stays the first of the disks.
        drives.sort_by_key(|drive| !drive.is_root_device);
        for drive in &mut drives {
            (drive.is_root_device, drive.partuuid) = (false, None);
        }
    }
    if config.host.is_some_and(|host| host.seed.is_some()) {
        drives.push(Drive {
            drive_id: seed::DRIVE.into(),
            path_on_host: Some(in_root(DRIVES).join(seed::DRIVE)),
            is_read_only: true,
            ..Drive::default()
        });
    }
    VmConfig {
        boot_source: BootSource {
            kernel_image_path: in_root(KERNEL),
            initrd_path: initrd.then(|| in_root(INITRD)),
            boot_args: match found {
                Some(found) => Some(found.with(boot_args.as_deref())),
                None => boot_args,
            },
            image_drive: None,
        },
        drives,
        network_interfaces: config
            .network_interfaces
            .into_iter()
            .zip(taps)
            .map(|(interface, tap)| NetworkInterface {
                bridge: None,
                host: None,
                tap_fd: Some(*tap),
                ..interface
            })
            .collect(),
        host: None,
        // Files of other sections, such as logs and sockets, are created by the monitor: their paths are the jail's already.
        ..config
    }
}

fn drive(drive: Drive) -> Drive {
    Drive {
        path_on_host: Some(in_root(DRIVES).join(&drive.drive_id)),
        size_mib: None,
        template: None,
        pool: None,
        ..drive
    }
}

fn in_root(name: &str) -> PathBuf {
    PathBuf::from("/").join(name)
}

#[cfg(test)]
#[path = "config_test.rs"]
mod config_test;
