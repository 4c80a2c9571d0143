//! What the guest boots: kernel, initrd, command line.

use crate::Problem;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Kernel command line used when `boot_args` is absent, as compatible clients expect it.
pub const DEFAULT_BOOT_ARGS: &str = "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux \
     i8042.nomux i8042.dumbkbd swiotlb=noforce";

/// The `boot-source` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootSource {
    /// An x86-64 kernel: an uncompressed ELF `vmlinux` or a `bzImage`.
    pub kernel_image_path: PathBuf,
    /// An initial RAM disk.
    #[serde(default)]
    pub initrd_path: Option<PathBuf>,
    /// Kernel command line; [`DEFAULT_BOOT_ARGS`] if absent.
    #[serde(default)]
    pub boot_args: Option<String>,
}

impl BootSource {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
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
