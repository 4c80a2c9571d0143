//! Request bodies that change a guest before its start or while it runs.

use crate::sections::machine::{CpuTemplate, HugePages, MachineConfig, OnReboot};
use crate::sections::rate_limiter::RateLimiter;
use serde::Deserialize;
use std::path::PathBuf;

/// `PATCH /machine-config`. Absent fields stay unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfigUpdate {
    /// See [`MachineConfig`] for all fields.
    #[serde(default)]
    pub vcpu_count: Option<u8>,
    /// Memory in MiB.
    #[serde(default)]
    pub mem_size_mib: Option<u64>,
    /// Hyper-threading.
    #[serde(default)]
    pub smt: Option<bool>,
    /// Deprecated.
    #[serde(default)]
    pub cpu_template: Option<CpuTemplate>,
    /// Dirty page tracking.
    #[serde(default)]
    pub track_dirty_pages: Option<bool>,
    /// Page size behind guest memory.
    #[serde(default)]
    pub huge_pages: Option<HugePages>,
    /// Bantam's own.
    #[serde(default)]
    pub forkable: Option<bool>,
    /// Bantam's own.
    #[serde(default)]
    pub i8042: Option<bool>,
    /// Bantam's own.
    #[serde(default)]
    pub on_reboot: Option<OnReboot>,
}

impl MachineConfigUpdate {
    /// Returns true if no field is set.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns `config` with the changes.
    pub fn apply(&self, config: &MachineConfig) -> MachineConfig {
        let mut config = config.clone();
        fn set<T: Clone>(to: &mut T, from: &Option<T>) {
            if let Some(value) = from {
                *to = value.clone();
            }
        }
        set(&mut config.vcpu_count, &self.vcpu_count);
        set(&mut config.mem_size_mib, &self.mem_size_mib);
        set(&mut config.smt, &self.smt);
        set(&mut config.track_dirty_pages, &self.track_dirty_pages);
        set(&mut config.huge_pages, &self.huge_pages);
        set(&mut config.forkable, &self.forkable);
        set(&mut config.i8042, &self.i8042);
        set(&mut config.on_reboot, &self.on_reboot);
        if let Some(template) = self.cpu_template {
            config.cpu_template = Some(template).filter(|t| *t != CpuTemplate::None);
        }
        config
    }
}

/// `PATCH /drives/{drive_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DriveUpdate {
    /// Id of the drive.
    pub drive_id: String,
    /// Path of the new image. The same path re-reads the size.
    #[serde(default)]
    pub path_on_host: Option<PathBuf>,
    /// New limits.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
}

/// `PATCH /network-interfaces/{iface_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkUpdate {
    /// Id of the interface.
    pub iface_id: String,
    /// New receive limits.
    #[serde(default)]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// New transmit limits.
    #[serde(default)]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// `PATCH /pmem/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PmemUpdate {
    /// Id of the device.
    pub id: String,
    /// New limits.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
}

/// `PATCH /balloon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonUpdate {
    /// Target size in MiB.
    pub amount_mib: u32,
}

/// `PATCH /balloon/statistics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonStatsUpdate {
    /// Interval in seconds.
    pub stats_polling_interval_s: u16,
}

fn yes() -> bool {
    true
}

/// `PATCH /balloon/hinting/start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct HintingStart {
    /// True to return the hinted pages to the guest as soon as it has sent all hints.
    #[serde(default = "yes")]
    pub acknowledge_on_stop: bool,
}

impl Default for HintingStart {
    fn default() -> Self {
        Self {
            acknowledge_on_stop: true,
        }
    }
}

/// `PATCH /hotplug/memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryHotplugUpdate {
    /// Target size in MiB.
    pub requested_size_mib: u32,
}

/// A run state of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RunState {
    /// The vCPUs are stopped.
    Paused,
    /// The vCPUs run.
    Resumed,
}

/// `PATCH /vm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmUpdate {
    /// The requested state.
    pub state: RunState,
}

/// An action of `PUT /actions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ActionType {
    /// Writes the metrics.
    FlushMetrics,
    /// Starts the guest.
    InstanceStart,
    /// Sends Ctrl-Alt-Del to the guest.
    SendCtrlAltDel,
    /// Bantam's own: presses the ACPI power button.
    PowerButton,
}

/// `PUT /actions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// The action.
    pub action_type: ActionType,
}
