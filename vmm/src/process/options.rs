//! The options of one run: a guest and how to run it. The command line makes them; nothing else is parsed here.

use std::os::fd::RawFd;
use std::path::PathBuf;

/// The version of the interface that is served, as clients ask for it.
pub const COMPATIBLE_VERSION: &str = "1.17.0";

/// Default limit of a request's body, in bytes.
pub const DEFAULT_MAX_BODY: usize = 51_200;

/// Which system calls the process may make once the guest runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SeccompMode {
    /// Those it needs.
    Default,
    /// Those a file names.
    File(PathBuf),
    /// All.
    Off,
}

/// A copy of another guest that is to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForkChild {
    /// Where it is waited for.
    pub socket: PathBuf,
    /// Images that become copies of its drives.
    pub images: Vec<(String, PathBuf)>,
    /// Open taps of this process, which take the place of its own.
    pub taps: Vec<(String, RawFd)>,
    /// An open end of a pipe: whoever has the other is to bring the copy, and is gone when that is closed.
    pub lifeline: Option<RawFd>,
}

/// A guest to run, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// The API's socket; `None` for no API.
    pub api_sock: Option<PathBuf>,
    /// The guest's JSON file; without it the API describes the guest.
    pub config_file: Option<PathBuf>,
    /// Where a copy of another guest is waited for.
    pub fork: Option<ForkChild>,
    /// The directory of the snapshot that it goes on from.
    pub restore: Option<PathBuf>,
    /// Whether what it touches at first is brought in before it asks.
    pub prefetch: bool,
    /// The guest's name.
    pub id: String,
    /// Metadata to start with.
    pub metadata: Option<PathBuf>,
    /// What the filter lets through.
    pub seccomp: SeccompMode,
    /// Whether the guest's boot is timed.
    pub boot_timer: bool,
    /// CLOCK_MONOTONIC in microseconds when the jailer started, if it said.
    pub start_time_us: Option<u64>,
    /// CPU time in microseconds when the process started, if the jailer said.
    pub start_time_cpu_us: Option<u64>,
    /// CPU time in microseconds of the jailer, if it said.
    pub parent_cpu_time_us: Option<u64>,
    /// Whether a PCI bus was asked for, which this version has not.
    pub enable_pci: bool,
    /// Where messages go, and which.
    pub logger: resources::Logger,
    /// Where metrics go.
    pub metrics_path: Option<PathBuf>,
    /// Most bytes of a request's body.
    pub max_body: usize,
    /// Most bytes of metadata.
    pub metadata_limit: usize,
}
