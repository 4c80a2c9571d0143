//! Processors and memory.

use crate::check::problem::Problem;
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

/// A ready-made set of changes of what processors show. Deprecated; `None` is the only one that
/// is served.
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

/// What becomes of a guest that reboots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnReboot {
    /// The process ends.
    #[default]
    Exit,
    /// It starts again from its kernel, in the same process; after a while, if it reboots over and over.
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
    /// Whether pairs of vCPUs are threads of one core; then their number is 1 or even.
    #[serde(default)]
    pub smt: bool,
    /// Deprecated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_template: Option<CpuTemplate>,
    /// Whether the pages a guest writes are tracked, for snapshots.
    #[serde(default)]
    pub track_dirty_pages: bool,
    /// Pages behind guest memory.
    #[serde(default)]
    pub huge_pages: HugePages,
    /// Bantam's own: whether copies of the running guest can be made (`PUT /vm/fork`). Its memory is then a file, which has
    /// no transparent huge pages.
    #[serde(default, skip_serializing_if = "is_no")]
    pub forkable: bool,
    /// Bantam's own: what becomes of a guest that reboots.
    #[serde(default, skip_serializing_if = "is_exit")]
    pub on_reboot: OnReboot,
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
    /// Memory in bytes.
    pub fn mem_bytes(&self) -> u64 {
        self.mem_size_mib << 20
    }

    /// Whether a balloon of `amount_mib` can be asked of the guest.
    pub fn holds_balloon(&self, amount_mib: u32) -> bool {
        u64::from(amount_mib) <= self.mem_size_mib
    }

    /// Everything that no machine can be.
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

/// Why a machine cannot be; the text goes with [`Self::field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MachineFault {
    /// None or too many.
    #[error("is {0}: must be from 1 to {MAX_VCPUS}")]
    Vcpus(u8),
    /// A core with one thread beside cores with two.
    #[error("must be 1 or even when smt is true")]
    HalfCore,
    /// Too little or too much, in MiB.
    #[error("is {0}: must be from {MIN_MEM_MIB} to {MAX_MEM_MIB} MiB")]
    Memory(u64),
    /// Memory that ends within a page.
    #[error("must be even when huge_pages is 2M")]
    HalfPage,
    /// Memory that cannot be shared by copies.
    #[error("is true, and pages of the host's reserve (huge_pages 2M) cannot be shared by copies")]
    ForkableReserve,
}

impl MachineFault {
    /// The key whose value it is.
    pub fn field(self) -> &'static str {
        match self {
            Self::Vcpus(_) | Self::HalfCore => "vcpu_count",
            Self::Memory(_) | Self::HalfPage => "mem_size_mib",
            Self::ForkableReserve => "forkable",
        }
    }
}
