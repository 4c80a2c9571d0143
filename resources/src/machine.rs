//! Processors and memory.

use crate::Problem;
use serde::{Deserialize, Serialize};

/// Most vCPUs of a guest.
pub const MAX_VCPUS: u8 = 32;
/// Least memory of a guest, in MiB: below this no current kernel comes up.
pub const MIN_MEM_MIB: u64 = 32;
/// Most memory, in MiB: 16 TiB, which 46 physical address bits reach as servers have them; KVM refuses what
/// a smaller host cannot map.
const MAX_MEM_MIB: u64 = 16 << 20;

/// Size of the pages that back guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// The host's base pages.
    #[default]
    None,
    /// Huge pages where the host can, base pages elsewhere.
    Transparent,
    /// Pages of 2 MiB from the host's reserve.
    #[serde(rename = "2M")]
    Hugetlb2M,
}

/// The `machine-config` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpu_count: u8,
    /// Memory in MiB, at least [`MIN_MEM_MIB`].
    pub mem_size_mib: u64,
    /// Whether pairs of vCPUs are threads of one core; then their number is 1 or even.
    #[serde(default)]
    pub smt: bool,
    /// Deprecated; only `None` has an effect we can give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<String>,
    /// Whether the pages a guest writes are tracked.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Pages behind guest memory.
    #[serde(default)]
    pub huge_pages: HugePages,
    /// Bantam's own: whether the guest has a keyboard controller (reset and Ctrl-Alt-Del). Without
    /// it the guest's kernel starts a little sooner.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub i8042: bool,
}

fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_yes(value: &bool) -> bool {
    *value
}

impl Default for MachineConfig {
    fn default() -> Self {
        Self {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            cpu_template: None,
            track_dirty_pages: false,
            huge_pages: HugePages::None,
            i8042: true,
        }
    }
}

impl MachineConfig {
    /// Memory in bytes.
    pub fn mem_bytes(&self) -> u64 {
        self.mem_size_mib << 20
    }

    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        let mut wrong = |field: &str, message: String| {
            problems.push(Problem::new(format!("machine-config.{field}"), message));
        };
        if !(1..=MAX_VCPUS).contains(&self.vcpu_count) {
            let message = format!("is {}: must be from 1 to {MAX_VCPUS}", self.vcpu_count);
            wrong("vcpu_count", message);
        }
        if self.smt && self.vcpu_count > 1 && self.vcpu_count % 2 == 1 {
            wrong("vcpu_count", "must be 1 or even when smt is true".into());
        }
        if !(MIN_MEM_MIB..=MAX_MEM_MIB).contains(&self.mem_size_mib) {
            let message = format!(
                "is {}: must be from {MIN_MEM_MIB} to {MAX_MEM_MIB} MiB",
                self.mem_size_mib
            );
            wrong("mem_size_mib", message);
        }
        if self.huge_pages == HugePages::Hugetlb2M && self.mem_size_mib % 2 == 1 {
            wrong("mem_size_mib", "must be even when huge_pages is 2M".into());
        }
        if self.cpu_template.as_deref().is_some_and(|t| t != "None") {
            let message = "CPU templates are not supported by this version: remove the key";
            wrong("cpu_template", message.into());
        }
        if self.track_dirty_pages {
            let message = "is not supported by this version: remove the key or set it to false";
            wrong("track_dirty_pages", message.into());
        }
    }
}
