//! The configuration of a guest as data: the JSON vocabulary, shared by the VMM, its API and the
//! jailer.
//!
//! The vocabulary is a superset of the one Firecracker's clients use. Keys of Bantam's own are marked
//! so in their documentation. This crate reads the configuration file and checks what can be
//! checked without the host: it opens no other file of its own accord and knows nothing of KVM.

mod balloon;
mod boot_source;
mod config_file;
mod cpu_config;
mod deprecated;
mod drive;
mod files;
mod host;
mod host_network;
mod logger;
mod machine;
mod memory_hotplug;
mod metrics;
mod mmds;
mod network;
mod pmem;
mod pool;
mod problem;
mod rate_limiter;
mod serial;
mod snapshot;
mod update;
mod vsock;

pub use balloon::{Balloon, BalloonStats, HintingStatus};
pub use boot_source::{BootSource, DEFAULT_BOOT_ARGS};
pub use config_file::{ConfigError, Entropy, Loaded, MAX_CONFIG_BYTES, VmConfig};
pub use cpu_config::{CpuConfig, CpuConfigOrPath};
pub use deprecated::deprecated;
pub use drive::{CacheType, Drive, IoEngine};
pub use files::{open_regular, read_bounded};
pub use host::{Host, Seed};
pub use host_network::HostNetwork;
pub use logger::{Level, Logger};
pub use machine::{
    CpuTemplate, HugePages, MAX_VCPUS, MIN_MEM_MIB, MachineConfig, MachineFault, OnReboot,
};
pub use memory_hotplug::MemoryHotplug;
pub use metrics::Metrics;
pub use mmds::{DEFAULT_MMDS_ADDRESS, MmdsConfig, MmdsConfigError, MmdsVersion};
pub use network::{BadName, InterfaceFault, MacAddress, NetworkInterface};
pub use pmem::Pmem;
pub use pool::{PoolDefinition, PoolType, check_pool_name, check_volume_name};
pub use problem::Problem;
pub use rate_limiter::{RateLimiter, TokenBucket};
pub use serial::Serial;
pub use snapshot::{
    DriveOverride, Fork, ForkChild, MemoryBackend, MemoryBackendType, NetworkOverride, Overrides,
    Prefetch, Recording, RestoredPages, SnapshotCreate, SnapshotLoad, SnapshotType, VsockOverride,
};
pub use update::{
    Action, ActionType, BalloonStatsUpdate, BalloonUpdate, DriveUpdate, HintingStart,
    MachineConfigUpdate, MemoryHotplugUpdate, NetworkUpdate, PmemUpdate, RunState, VmUpdate,
};
pub use vsock::Vsock;

/// Clients write `null` for a value they leave to us.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::Deserialize<'de> + Default,
{
    let value = <Option<T> as serde::Deserialize>::deserialize(deserializer);
    value.map(Option::unwrap_or_default)
}
