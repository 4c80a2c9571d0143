//! The `boot-source` section: kernel, initrd and command line.

use crate::check::problem::Problem;
use crate::sections::drive::Drive;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Kernel command line if `boot_args` is absent, as Firecracker's clients expect it.
pub const DEFAULT_BOOT_ARGS: &str = "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux \
     i8042.nomux i8042.dumbkbd swiotlb=noforce";

/// The `boot-source` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    /// An x86-64 kernel: an uncompressed ELF `vmlinux` or a `bzImage`.
    #[serde(default)]
    pub kernel_image_path: PathBuf,
    /// An initial RAM disk.
    #[serde(default)]
    pub initrd_path: Option<PathBuf>,
    /// Kernel command line; [`DEFAULT_BOOT_ARGS`] if absent.
    #[serde(default)]
    pub boot_args: Option<String>,
    /// Bantam's own, for the jailer, instead of the keys above: id of the drive whose image contains kernel, initrd and
    /// command line. Each start finds them by the image's GRUB configuration or boot-loader entries, and appends
    /// `boot_args` to the command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_drive: Option<String>,
}

impl BootSource {
    pub(crate) fn check(&self, drives: &[Drive], problems: &mut Vec<Problem>) {
        if let Some(id) = &self.image_drive {
            let mut wrong = |key: &str, message: String| {
                problems.push(Problem::new(format!("boot-source.{key}"), message));
            };
            if !drives.iter().any(|drive| drive.drive_id == *id) {
                wrong("image_drive", format!("there is no drive `{id}`"));
            }
            let kernel = !self.kernel_image_path.as_os_str().is_empty();
            for (given, key) in [
                (kernel, "kernel_image_path"),
                (self.initrd_path.is_some(), "initrd_path"),
            ] {
                if given {
                    wrong(
                        key,
                        "is read from the image of `image_drive`: remove one of the two".into(),
                    );
                }
            }
            return;
        }
        if self.kernel_image_path.as_os_str().is_empty() {
            problems.push(Problem::new(
                "boot-source.kernel_image_path",
                "is empty: name a vmlinux or bzImage",
            ));
        }
        if self
            .initrd_path
            .as_ref()
            .is_some_and(|p| p.as_os_str().is_empty())
        {
            problems.push(Problem::new(
                "boot-source.initrd_path",
                "is empty: name an initrd or remove the key",
            ));
        }
    }
}
