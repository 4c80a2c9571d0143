//! The `machine-config` section: processors and memory.

use crate::check::problem::Problem;
use serde::{Deserialize, Serialize};

/// Largest number of vCPUs.
pub const MAX_VCPUS: u8 = 32;
/// Smallest memory in MiB. No current kernel boots with less.
pub const MIN_MEM_MIB: u64 = 32;
/// Largest memory in MiB: 16 TiB, within the 46 physical address bits of servers. KVM refuses sizes that a smaller host
/// cannot map.
const MAX_MEM_MIB: u64 = 16 << 20;

/// Size of the pages behind guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum HugePages {
    /// Base pages of the host.
    #[default]
    None,
    /// Transparent huge pages where the host can, base pages elsewhere.
    Transparent,
    /// Pages of 2 MiB from the host's hugetlb reserve.
    #[serde(rename = "2M")]
    Hugetlb2M,
}

/// A built-in CPU template. Deprecated; only `None` is supported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(
    missing_docs,
    reason = "the names of the compatible monitor's templates"
)]
pub enum CpuTemplate {
    C3,
    T2,
    T2S,
    T2CL,
    T2A,
    V1N1,
    None,
}

/// The reaction to a guest that reboots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReboot {
    /// The process ends.
    #[default]
    Exit,
    /// The guest boots again from its kernel in the same process. A guest that reboots in a loop is delayed.
    Restart,
}

/// The `machine-config` section.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfig {
    /// Number of vCPUs, 1 to [`MAX_VCPUS`].
    pub vcpu_count: u8,
    /// Memory in MiB, at least [`MIN_MEM_MIB`].
    pub mem_size_mib: u64,
    /// True if pairs of vCPUs are threads of one core. The number of vCPUs must then be 1 or even.
    #[serde(default)]
    pub smt: bool,
    /// Deprecated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<CpuTemplate>,
    /// True to track the pages that the guest writes, for diff snapshots.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Page size behind guest memory.
    #[serde(default)]
    pub huge_pages: HugePages,
    /// Bantam's own: true to allow forks of the running guest (`PUT /vm/fork`). Guest memory is then a memory file, which
    /// has no transparent huge pages.
    #[serde(default, skip_serializing_if = "is_no")]
    pub forkable: bool,
    /// Bantam's own: reaction to a guest that reboots.
    #[serde(default, skip_serializing_if = "is_exit")]
    pub on_reboot: OnReboot,
    /// Bantam's own: true to provide a keyboard controller (for reset and Ctrl-Alt-Del). Without it the guest's kernel
    /// boots slightly faster.
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

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_no(value: &bool) -> bool {
    !*value
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_exit(value: &OnReboot) -> bool {
    *value == OnReboot::Exit
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
            forkable: false,
            on_reboot: OnReboot::Exit,
            i8042: true,
        }
    }
}

impl MachineConfig {
    /// Returns the memory size in bytes.
    pub fn mem_bytes(&self) -> u64 {
        self.mem_size_mib << 20
    }

    /// Returns true if a balloon of `amount_mib` fits the guest.
    pub fn holds_balloon(&self, amount_mib: u32) -> bool {
        u64::from(amount_mib) <= self.mem_size_mib
    }

    /// Returns all invalid values.
    pub fn faults(&self) -> Vec<MachineFault> {
        let (vcpus, mib) = (self.vcpu_count, self.mem_size_mib);
        let faults = [
            (
                !(1..=MAX_VCPUS).contains(&vcpus),
                MachineFault::Vcpus(vcpus),
            ),
            (
                self.smt && vcpus > 1 && vcpus % 2 == 1,
                MachineFault::HalfCore,
            ),
            (
                !(MIN_MEM_MIB..=MAX_MEM_MIB).contains(&mib),
                MachineFault::Memory(mib),
            ),
            (
                self.huge_pages == HugePages::Hugetlb2M && mib % 2 == 1,
                MachineFault::HalfPage,
            ),
            (
                self.forkable && self.huge_pages == HugePages::Hugetlb2M,
                MachineFault::ForkableReserve,
            ),
        ];
        let faults = faults.into_iter().filter(|(is, _)| *is);
        faults.map(|(_, fault)| fault).collect()
    }

    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        problems.extend(self.faults().iter().map(|fault| {
            let key = format!("machine-config.{}", fault.field());
            Problem::new(key, fault.to_string())
        }));
    }
}

/// An invalid value of the section. The text follows [`Self::field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineFault {
    /// Zero vCPUs or too many.
    #[error("is {0}: must be from 1 to {MAX_VCPUS}")]
    Vcpus(u8),
    /// An odd number of vCPUs, so that one core would have one thread.
    #[error("must be 1 or even when smt is true")]
    HalfCore,
    /// Too little or too much memory, in MiB.
    #[error("is {0}: must be from {MIN_MEM_MIB} to {MAX_MEM_MIB} MiB")]
    Memory(u64),
    /// Memory that is not a multiple of the page size.
    #[error("must be even when huge_pages is 2M")]
    HalfPage,
    /// Memory that forks cannot share.
    #[error("is true, but forks cannot share pages of the hugetlb reserve (huge_pages 2M)")]
    ForkableReserve,
}

impl MachineFault {
    /// Returns the key of the value.
    pub fn field(self) -> &'static str {
        match self {
            Self::Vcpus(_) | Self::HalfCore => "vcpu_count",
            Self::Memory(_) | Self::HalfPage => "mem_size_mib",
            Self::ForkableReserve => "forkable",
        }
    }
}
