//! The sections of a guest's configuration, a file each: the JSON type and the checks that need no host.
//!
//! [`crate::VmConfig`] holds one of each; the API's `PUT` requests carry the same types. Nothing here opens a file.

pub(crate) mod balloon;
pub(crate) mod boot_source;
pub(crate) mod cpu_config;
pub(crate) mod drive;
pub(crate) mod entropy;
pub(crate) mod host;
pub(crate) mod host_network;
pub(crate) mod logger;
pub(crate) mod machine;
pub(crate) mod memory_hotplug;
pub(crate) mod metrics;
pub(crate) mod mmds;
pub(crate) mod network;
pub(crate) mod pmem;
pub(crate) mod rate_limiter;
pub(crate) mod serial;
pub(crate) mod vsock;

pub use balloon::{Balloon, BalloonStats, HintingStatus};
pub use boot_source::{BootSource, DEFAULT_BOOT_ARGS};
pub use cpu_config::{CpuConfig, CpuConfigOrPath};
pub use drive::{CacheType, Drive, IoEngine};
pub use entropy::Entropy;
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
pub use rate_limiter::{RateLimiter, TokenBucket};
pub use serial::Serial;
pub use vsock::Vsock;

/// The table of all sections, one row for each, in the order in which `GET /vm/config` shows them.
///
/// [`VmConfig`](crate::VmConfig) is made from this table. So are, in the monitor, the commands that set a section, their
/// routes, their phase rules, and the list of devices to build. A row says:
///
/// ```text
/// /// Documentation and serde attributes of the field of `VmConfig`.
/// field: Type = "key in the configuration file" {
///     put: BodyType at "path" by id_field, checked by method; phase: Rule;
///     device: path::of::Device;
/// }
/// ```
///
/// - `put`: the API sets the section by `PUT /path`, or `PUT /path/{id}` for an entry of a list, with a body of `BodyType`.
///   The monitor's `Controller` stores it as it is, or after a check by the method named here.
/// - `phase`: `Guest` describes the guest: it cannot be set after the start, and a snapshot cannot be loaded after it.
///   `Pluggable` is the same for devices that a PCI bus could hold. `Process` belongs to the monitor's process, not to the
///   guest: a snapshot can still be loaded.
/// - `device`: the virtio device that the section asks for. It implements `devices::virtio::section::FromSection`.
///
/// `sections!([with] ...)` expands to `with! { ... rows }`. [`for_each_put!`] and [`for_each_device!`] give the parts of the
/// rows that the monitor needs.
#[macro_export]
macro_rules! sections {
    ([$($with:tt)+] $($prefix:tt)*) => {
        $($with)+! {
            $($prefix)*
            /// Memory balloon.
            #[serde(default)]
            balloon: Option<Balloon> = "balloon" {
                put: Balloon at "balloon", checked by set_balloon; phase: Guest;
                device: devices::balloon::Balloon;
            }
            /// Disks, in the order in which the guest names them.
            drives: Vec<Drive> = "drives" {
                put: Drive at "drives" by drive_id, checked by set_drive; phase: Pluggable;
                device: devices::block::Block;
            }
            /// Kernel, initrd and command line.
            boot_source: BootSource = "boot-source" {
                put: BootSource at "boot-source", checked by set_boot_source; phase: Guest;
            }
            /// CPU features.
            #[serde(default)]
            cpu_config: Option<CpuConfigOrPath> = "cpu-config" {
                put: CpuConfig at "cpu-config", checked by set_cpu_config; phase: Process;
            }
            /// Log file, level and format of messages.
            #[serde(default)]
            logger: Option<Logger> = "logger" {
                put: Logger at "logger", checked by set_logger; phase: Process;
            }
            /// vCPUs and memory.
            #[serde(default, deserialize_with = "null_as_default")]
            machine_config: MachineConfig = "machine-config" {
                put: MachineConfig at "machine-config", checked by set_machine; phase: Guest;
            }
            /// Files for metrics.
            #[serde(default)]
            metrics: Option<Metrics> = "metrics" {
                put: Metrics at "metrics", checked by set_metrics; phase: Process;
            }
            /// Metadata service.
            #[serde(default)]
            mmds_config: Option<MmdsConfig> = "mmds-config" {
                put: MmdsConfig at "mmds" / "config", checked by set_mmds; phase: Guest;
            }
            /// Network interfaces.
            #[serde(default, deserialize_with = "null_as_default")]
            network_interfaces: Vec<NetworkInterface> = "network-interfaces" {
                put: NetworkInterface at "network-interfaces" by iface_id, checked by set_network; phase: Pluggable;
                device: devices::net::Net;
            }
            /// Sockets between guest and host.
            #[serde(default)]
            vsock: Option<Vsock> = "vsock" {
                put: Vsock at "vsock", checked by set_vsock; phase: Guest;
                device: devices::vsock::Vsock;
            }
            /// Source of random bytes.
            #[serde(default)]
            entropy: Option<Entropy> = "entropy" {
                put: Entropy at "entropy"; phase: Guest;
                device: devices::rng::Rng;
            }
            /// Persistent memory.
            #[serde(default, deserialize_with = "null_as_default")]
            pmem: Vec<Pmem> = "pmem" {
                put: Pmem at "pmem" by id, checked by set_pmem; phase: Pluggable;
            }
            /// Memory that can be plugged and unplugged.
            #[serde(default)]
            memory_hotplug: Option<MemoryHotplug> = "memory-hotplug" {
                put: MemoryHotplug at "hotplug" / "memory", checked by set_memory_hotplug; phase: Guest;
            }
            /// Serial console.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            serial: Option<Serial> = "serial" {
                put: Serial at "serial", checked by set_serial; phase: Process;
            }
            /// Bantam's own, for the jailer: the guest on this host.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            host: Option<Host> = "host" {}
        }
    };
}

/// Expands to `$with! { Body field ("path") (id_field) (method) Phase; ... }`, a row for each section that the API sets.
#[macro_export]
macro_rules! for_each_put {
    ($with:ident) => {
        $crate::sections!([$crate::for_each_put] @rows $with);
    };
    (@rows $with:ident $(
        $(#[$attribute:meta])*
        $field:ident: $type:ty = $key:literal {
            $(
                put: $body:ident at $first:literal $(/ $second:literal)? $(by $id:ident)? $(, checked by $set:ident)?;
                phase: $phase:ident;
            )?
            $(device: $device:path;)?
        }
    )*) => {
        $with! {
            $($($body $field ($first $(, $second)?) ($($id)?) ($($set)?) $phase;)?)*
        }
    };
}

/// Expands to `$with! { field "key" path::of::Device; ... }`, a row for each section that asks for a device.
#[macro_export]
macro_rules! for_each_device {
    ($with:ident) => {
        $crate::sections!([$crate::for_each_device] @rows $with);
    };
    (@rows $with:ident $(
        $(#[$attribute:meta])*
        $field:ident: $type:ty = $key:literal {
            $(
                put: $body:ident at $first:literal $(/ $second:literal)? $(by $id:ident)? $(, checked by $set:ident)?;
                phase: $phase:ident;
            )?
            $(device: $device:path;)?
        }
    )*) => {
        $with! {
            $($($field $key $device;)?)*
        }
    };
}
