//! The commands of a monitor and their answers. The API, the configuration file and embedders all use these.

use crate::process::messages;
use resources::{
    BalloonStatsUpdate, BalloonUpdate, DriveUpdate, Fork, HintingStart, MachineConfigUpdate,
    MemoryHotplugUpdate, NetworkUpdate, PmemUpdate, SnapshotCreate, SnapshotLoad,
};
use serde_json::Value;

/// A command.
#[derive(Clone, Debug)]
pub enum Command {
    /// Sets a section of the configuration.
    Configure(Box<Configure>),
    /// Changes some keys of the section `machine-config`.
    UpdateMachine(MachineConfigUpdate),
    /// Loads a snapshot in place of starting a guest.
    LoadSnapshot(Box<SnapshotLoad>),
    /// Starts the guest.
    Start,
    /// Changes a guest that was started.
    Operate(Operate),
    /// Returns information.
    Query(Query),
    /// Changes the metadata, before or after the start.
    Metadata(Metadata),
}

/// The phases in which a section can be set, and what setting it means for a later snapshot load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PhaseRule {
    /// Describes the guest: it cannot be set after the start, and no snapshot can be loaded after it.
    Guest,
    /// As [`Self::Guest`], for devices that a PCI bus could hold: clients expect another error after the start.
    Pluggable,
    /// Belongs to the process, not to the guest: a snapshot can still be loaded.
    Process,
}

macro_rules! configure {
    ($($body:ident $field:ident $path:tt $id:tt $set:tt $phase:ident;)*) => {
        /// A section of the configuration, made from the table [`resources::sections!`].
        #[derive(Clone, Debug)]
        #[expect(missing_docs, reason = "each variant is documented by its type")]
        pub enum Configure {
            $($body(resources::$body),)*
        }

        impl Configure {
            /// Returns the phases in which the section can be set.
            pub fn phase_rule(&self) -> PhaseRule {
                match self {
                    $(Self::$body(_) => PhaseRule::$phase,)*
                }
            }
        }
    };
}
resources::for_each_put!(configure);

/// A kind of device that can be plugged into a running guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pluggable {
    /// A disk.
    Drive,
    /// A network card.
    Network,
    /// Persistent memory.
    Pmem,
}

/// A change of a guest that was started.
#[derive(Clone, Debug)]
pub enum Operate {
    /// Sets the balloon's target size.
    Balloon(BalloonUpdate),
    /// Sets the interval of the balloon's statistics.
    BalloonStats(BalloonStatsUpdate),
    /// Saves the guest.
    CreateSnapshot(SnapshotCreate),
    /// Changes a drive's file or rate limits.
    Drive(DriveUpdate),
    /// Writes a line of metrics.
    FlushMetrics,
    /// Copies the guest to waiting processes.
    Fork(Fork),
    /// Starts a run of free page hinting.
    HintingStart(HintingStart),
    /// Ends the run and returns the hinted pages to the guest.
    HintingStop,
    /// Changes the size of the plugged memory.
    MemoryHotplug(MemoryHotplugUpdate),
    /// Changes an interface's rate limits.
    Network(NetworkUpdate),
    /// Pauses the guest. Does nothing if it is paused.
    Pause,
    /// Changes the rate limits of persistent memory.
    Pmem(PmemUpdate),
    /// Presses the power button.
    PowerButton,
    /// Resumes the guest. Does nothing if it runs.
    Resume,
    /// Presses Ctrl, Alt and Del on the keyboard.
    SendCtrlAltDel,
    /// Unplugs the device with this id.
    Unplug(Pluggable, String),
}

/// A request for information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// The balloon's configuration.
    Balloon,
    /// The balloon's statistics.
    BalloonStats,
    /// The progress of free page hinting.
    HintingStatus,
    /// Id, state and version of the process.
    Instance,
    /// The `machine-config` section.
    Machine,
    /// The size of the plugged memory.
    MemoryHotplug,
    /// The metadata.
    Metadata,
    /// The metrics in Prometheus's text format.
    Prometheus,
    /// The version.
    Version,
    /// The whole configuration.
    Vm,
}

/// A change of the metadata.
#[derive(Clone, Debug)]
pub enum Metadata {
    /// Replaces the metadata.
    Put(Value),
    /// Merges into the metadata (RFC 7396).
    Patch(Value),
}

/// An answer to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The command is done.
    Done,
    /// JSON.
    Json(String),
    /// Plain text.
    Text(String),
}

/// Why a command was refused. Texts that Firecracker's clients match are Firecracker's.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The guest is not started yet.
    #[error("The requested operation is not supported before starting the microVM.")]
    BeforeStart,
    /// The guest is started already.
    #[error("The requested operation is not supported after starting the microVM.")]
    AfterStart,
    /// The device would have to be plugged in. Clients match either part of the text.
    #[error(
        "The requested operation is not supported after starting the microVM: PCI is not enabled."
    )]
    NoHotplug,
    /// This version does not support the command.
    #[error("The requested operation is not supported: {0}")]
    Unsupported(String),
    /// A part of the command, or the host, is at fault.
    #[error("{subject} error: {why}")]
    Refused {
        /// The part that is at fault.
        subject: &'static str,
        /// The reason.
        why: String,
    },
    /// The metadata would exceed its limit.
    #[error("MMDS limit exceeded error: {0}")]
    MetadataTooLarge(String),
}

impl CommandError {
    /// Returns a closure for `map_err` of an operation on `subject`.
    pub fn refused<E: std::error::Error>(subject: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Refused {
            subject,
            why: messages::chain(&error),
        }
    }
}

/// Returns the error of a command that was refused because of `subject`.
pub(super) fn refused(subject: &'static str, why: impl Into<String>) -> CommandError {
    CommandError::Refused {
        subject,
        why: why.into(),
    }
}
