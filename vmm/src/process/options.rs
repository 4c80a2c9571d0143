//! The options of one run: the guest, and how to run it. The command line makes them.

use std::os::fd::RawFd;
use std::path::PathBuf;

/// Version of Firecracker whose interface this program serves.
pub const COMPATIBLE_VERSION: &str = "1.17.0";

/// Default limit of a request's body in bytes.
pub const DEFAULT_MAX_BODY: usize = 51_200;

/// The system calls that the process may make once the guest runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeccompMode {
    /// The built-in list.
    Default,
    /// The list in this file.
    File(PathBuf),
    /// All system calls.
    Off,
}

/// Options of a process that becomes a copy of another guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkChild {
    /// Path of the socket that the parent connects to.
    pub socket: PathBuf,
    /// Paths of images that become copies of the parent's drives, by drive id.
    pub images: Vec<(String, PathBuf)>,
    /// Open taps of this process for the guest's interfaces, by interface id.
    pub taps: Vec<(String, RawFd)>,
    /// An open end of a pipe. The process that arranges the fork holds the other end and closes it if it gives up.
    pub lifeline: Option<RawFd>,
}

/// Options of a guest's run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Path of the API socket; `None` for no API.
    pub api_sock: Option<PathBuf>,
    /// Path of the guest's JSON file; without it, the API configures the guest.
    pub config_file: Option<PathBuf>,
    /// Options of a process that becomes a copy of another guest.
    pub fork: Option<ForkChild>,
    /// Directory of the snapshot to restore.
    pub restore: Option<PathBuf>,
    /// Whether to read ahead the pages that the restored guest touches first.
    pub prefetch: bool,
    /// The guest's name.
    pub id: String,
    /// Path of a JSON file with metadata.
    pub metadata: Option<PathBuf>,
    /// The allowed system calls.
    pub seccomp: SeccompMode,
    /// Whether to time the guest's boot.
    pub boot_timer: bool,
    /// CLOCK_MONOTONIC in microseconds when the jailer started.
    pub start_time_us: Option<u64>,
    /// CPU time in microseconds when the process started.
    pub start_time_cpu_us: Option<u64>,
    /// CPU time in microseconds that the jailer used.
    pub parent_cpu_time_us: Option<u64>,
    /// Whether the client asked for a PCI bus, which this version does not have.
    pub enable_pci: bool,
    /// Destination, level and format of messages.
    pub logger: resources::Logger,
    /// Path of the metrics file.
    pub metrics_path: Option<PathBuf>,
    /// Limit of a request's body in bytes.
    pub max_body: usize,
    /// Limit of the metadata in bytes.
    pub metadata_limit: usize,
}
