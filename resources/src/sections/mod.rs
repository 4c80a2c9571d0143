//! The sections of a guest's configuration, a file each: the JSON type and the checks that need no host.
//!
//! [`crate::VmConfig`] holds one of each; the API's `PUT` requests carry the same types. Nothing here opens a file.

pub mod balloon;
pub mod boot_source;
pub mod cpu_config;
pub mod drive;
pub mod entropy;
pub mod host;
pub mod host_network;
pub mod logger;
pub mod machine;
pub mod memory_hotplug;
pub mod metrics;
pub mod mmds;
pub mod network;
pub mod pmem;
pub mod rate_limiter;
pub mod serial;
pub mod vsock;
