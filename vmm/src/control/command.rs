//! What can be asked of a monitor, and what it answers: the only way in, for the API, the configuration
//! file and embedders alike.

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
    /// Does something with a guest that was started.
    Operate(Operate),
    /// Asks.
    Query(Query),
    /// Puts metadata in place, before the start and after.
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

/// Something to do with a guest that was started.
#[derive(Clone, Debug)]
pub enum Operate {
    /// Changes the balloon's size.
    Balloon(BalloonUpdate),
    /// Changes how often the balloon tells statistics.
    BalloonStats(BalloonStatsUpdate),
    /// Saves the guest.
    CreateSnapshot(SnapshotCreate),
    /// Changes a disk.
    Drive(DriveUpdate),
    /// Writes the metrics.
    FlushMetrics,
    /// Makes copies of the guest.
    Fork(Fork),
    /// Asks the guest for hints of free pages.
    HintingStart(HintingStart),
    /// Gives it those pages back.
    HintingStop,
    /// Changes the plugged memory.
    MemoryHotplug(MemoryHotplugUpdate),
    /// Changes a card's limits.
    Network(NetworkUpdate),
    /// Holds the guest; nothing if it is held.
    Pause,
    /// Changes the limits of persistent memory.
    Pmem(PmemUpdate),
    /// Presses the power button.
    PowerButton,
    /// Lets the guest go on; nothing if it runs.
    Resume,
    /// Presses Ctrl, Alt and Del.
    SendCtrlAltDel,
    /// Takes a device away.
    Unplug(Pluggable, String),
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Query {
    /// The balloon's configuration.
    Balloon,
    /// What the balloon tells of the guest's memory.
    BalloonStats,
    /// How far hints of free pages are.
    HintingStatus,
    /// Who and in which state.
    Instance,
    /// The `machine-config` section.
    Machine,
    /// How much memory is plugged.
    MemoryHotplug,
    /// The metadata.
    Metadata,
    /// The metrics in the text format of Prometheus.
    Prometheus,
    /// The version.
    Version,
    /// The whole configuration.
    Vm,
}

/// A change of the metadata.
#[derive(Clone, Debug)]
pub enum Metadata {
    /// This and nothing else.
    Put(Value),
    /// As RFC 7396 merges it.
    Patch(Value),
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done.
    Done,
    /// What was asked for, as JSON.
    Json(String),
    /// Text.
    Text(String),
}

/// Why a command was not carried out. The texts are those of the compatible monitor where clients may read
/// them.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// There is no guest yet.
    #[error("The requested operation is not supported before starting the microVM.")]
    BeforeStart,
    /// There is a guest already.
    #[error("The requested operation is not supported after starting the microVM.")]
    AfterStart,
    /// A device that would have to be plugged in. Clients look for either part of the text.
    #[error(
        "The requested operation is not supported after starting the microVM: PCI is not enabled."
    )]
    NoHotplug,
    /// This version cannot.
    #[error("The requested operation is not supported: {0}")]
    Unsupported(String),
    /// A part of the command, or the host, is at fault.
    #[error("{subject} error: {why}")]
    Refused {
        /// What it was about.
        subject: &'static str,
        /// Why.
        why: String,
    },
    /// The metadata would be larger than allowed.
    #[error("MMDS limit exceeded error: {0}")]
    MetadataTooLarge(String),
}

impl CommandError {
    /// For `map_err` of something about `subject`.
    pub fn refused<E: std::error::Error>(subject: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Refused {
            subject,
            why: messages::chain(&error),
        }
    }
}

/// A command that cannot be carried out because of its `subject`.
pub(super) fn refused(subject: &'static str, why: impl Into<String>) -> CommandError {
    CommandError::Refused {
        subject,
        why: why.into(),
    }
}
