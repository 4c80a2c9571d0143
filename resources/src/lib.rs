//! The configuration of a guest as data: the JSON vocabulary, shared by the VMM, its API and the
//! jailer.
//!
//! The vocabulary is a superset of the one Firecracker's clients use. Keys of Bantam's own are marked
//! so in their documentation. This crate reads the configuration file and checks what can be
//! checked without the host: it opens no other file and knows nothing of KVM.

mod balloon;
mod boot_source;
mod config_file;
mod drive;
mod machine;
mod mmds;
mod network;
mod problem;
mod rate_limiter;
mod vsock;

pub use balloon::{Balloon, BalloonStats, HintingStatus};
pub use boot_source::{BootSource, DEFAULT_BOOT_ARGS};
pub use config_file::{ConfigError, Entropy, Loaded, MAX_CONFIG_BYTES, VmConfig};
pub use drive::{CacheType, Drive, IoEngine};
pub use machine::{HugePages, MAX_VCPUS, MIN_MEM_MIB, MachineConfig};
pub use mmds::{DEFAULT_MMDS_ADDRESS, MmdsConfig, MmdsConfigError, MmdsVersion};
pub use network::{MacAddress, NetworkInterface};
pub use problem::Problem;
pub use rate_limiter::{RateLimiter, TokenBucket};
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
