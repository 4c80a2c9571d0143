//! The configuration of a guest as data: JSON types and their checks, shared by the monitor, its API and the jailer.
//!
//! The JSON is a superset of Firecracker's; keys of Bantam's own are marked in their documentation. This crate reads the
//! configuration file and checks what can be checked without the host. It opens no other file by itself and knows
//! nothing of KVM.

mod check;
mod config_file;
mod pool;
mod requests;
mod sections;

pub use check::error::{ConfigError, MAX_CONFIG_BYTES};
pub use check::files::{open_regular, read_bounded};
pub use check::problem::Problem;
pub use config_file::{Loaded, VmConfig};
pub use pool::{PoolDefinition, PoolType, check_pool_name, check_volume_name};
pub use requests::deprecated::deprecated;
pub use requests::snapshot::{
    DriveOverride, Fork, ForkChild, MemoryBackend, MemoryBackendType, NetworkOverride, Overrides,
    Prefetch, Recording, RestoredPages, SnapshotCreate, SnapshotLoad, SnapshotType, VsockOverride,
};
pub use requests::update::{
    Action, ActionType, BalloonStatsUpdate, BalloonUpdate, DriveUpdate, HintingStart,
    MachineConfigUpdate, MemoryHotplugUpdate, NetworkUpdate, PmemUpdate, RunState, VmUpdate,
};
pub use sections::balloon::{Balloon, BalloonStats, HintingStatus};
pub use sections::boot_source::{BootSource, DEFAULT_BOOT_ARGS};
pub use sections::cpu_config::{CpuConfig, CpuConfigOrPath};
pub use sections::drive::{CacheType, Drive, IoEngine};
pub use sections::entropy::Entropy;
pub use sections::host::{Host, Seed};
pub use sections::host_network::HostNetwork;
pub use sections::logger::{Level, Logger};
pub use sections::machine::{
    CpuTemplate, HugePages, MAX_VCPUS, MIN_MEM_MIB, MachineConfig, MachineFault, OnReboot,
};
pub use sections::memory_hotplug::MemoryHotplug;
pub use sections::metrics::Metrics;
pub use sections::mmds::{DEFAULT_MMDS_ADDRESS, MmdsConfig, MmdsConfigError, MmdsVersion};
pub use sections::network::{BadName, InterfaceFault, MacAddress, NetworkInterface};
pub use sections::pmem::Pmem;
pub use sections::rate_limiter::{RateLimiter, TokenBucket};
pub use sections::serial::Serial;
pub use sections::vsock::Vsock;
