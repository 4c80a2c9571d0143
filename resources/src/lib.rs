//! The configuration of a guest as data: JSON types and their checks, shared by the monitor, its API and the jailer.
//!
//! The JSON is a superset of Firecracker's; keys of Bantam's own are marked in their documentation. This crate reads the
//! configuration file and checks what can be checked without the host. It opens no other file by itself and knows
//! nothing of KVM.

#[macro_use]
mod sections;

mod check;
mod config_file;
mod pool;
mod requests;

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
pub use sections::*;
