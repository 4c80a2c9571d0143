//! Changes of a guest, before it starts and while it runs: the bodies of the API that are no section
//! of the configuration file.

use crate::sections::machine::{CpuTemplate, HugePages, MachineConfig, OnReboot};
use crate::sections::rate_limiter::RateLimiter;
use serde::Deserialize;
use std::path::PathBuf;

/// `PATCH /machine-config`: what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MachineConfigUpdate {
    /// See [`MachineConfig`], as all.
    #[serde(default)]
    pub vcpu_count: Option<u8>,
    /// Memory in MiB.
    #[serde(default)]
    pub mem_size_mib: Option<u64>,
    /// Threads of cores.
    #[serde(default)]
    pub smt: Option<bool>,
    /// Deprecated.
    #[serde(default)]
    pub cpu_template: Option<CpuTemplate>,
    /// Tracking of pages.
    #[serde(default)]
    pub track_dirty_pages: Option<bool>,
    /// Pages behind memory.
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
    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// `config` with the changes.
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
    /// The drive.
    pub drive_id: String,
    /// Another file; the same one to take a new size.
    #[serde(default)]
    pub path_on_host: Option<PathBuf>,
    /// Other limits.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
}

/// `PATCH /network-interfaces/{iface_id}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkUpdate {
    /// The interface.
    pub iface_id: String,
    /// Other limits on receiving.
    #[serde(default)]
    pub rx_rate_limiter: Option<RateLimiter>,
    /// Other limits on sending.
    #[serde(default)]
    pub tx_rate_limiter: Option<RateLimiter>,
}

/// `PATCH /pmem/{id}`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PmemUpdate {
    /// The device.
    pub id: String,
    /// Other limits.
    #[serde(default)]
    pub rate_limiter: Option<RateLimiter>,
}

/// `PATCH /balloon`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonUpdate {
    /// Size to come to, in MiB.
    pub amount_mib: u32,
}

/// `PATCH /balloon/statistics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BalloonStatsUpdate {
    /// Seconds between two.
    pub stats_polling_interval_s: u16,
}

fn yes() -> bool {
    true
}

/// `PATCH /balloon/hinting/start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct HintingStart {
    /// Whether the guest gets its pages back as soon as it has told of all.
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
    /// Size to come to, in MiB.
    pub requested_size_mib: u32,
}

/// A state to bring the guest to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum RunState {
    /// Its processors stand still.
    Paused,
    /// They run.
    Resumed,
}

/// `PATCH /vm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmUpdate {
    /// To what.
    pub state: RunState,
}

/// What `PUT /actions` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum ActionType {
    /// Writes the metrics.
    FlushMetrics,
    /// Starts the guest.
    InstanceStart,
    /// Presses three keys.
    SendCtrlAltDel,
    /// Bantam's own: presses the power button.
    PowerButton,
}

/// `PUT /actions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Which.
    pub action_type: ActionType,
}
