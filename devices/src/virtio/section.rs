//! The contract between a virtio device and the section of the configuration that asks for it.
//!
//! The table of sections in `resources` names the type that implements [`FromSection`]; the monitor builds it from there.

use super::device::VirtioDevice;
use crate::util::metrics::MetricSet;
use std::error::Error;

/// Place of a device among the devices of a machine. Devices of lower places get lower register windows, and devices of
/// equal places follow the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The disk that the guest's root is on, which Linux calls `vda`.
    RootDisk,
    /// The other disks.
    Disk,
    /// Network cards.
    Network,
    /// All other devices.
    Other,
}

/// Why the device of a section cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("{key}")]
pub struct BuildError {
    /// The key in the configuration, with the reason if the key alone does not tell.
    pub key: String,
    /// Whether the configuration, or a file it names, is at fault, and not the host.
    pub is_configuration: bool,
    /// The cause.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
}

impl BuildError {
    /// Returns a closure for `map_err`: the value of `key` cannot be used.
    pub fn configuration<E: Error + Send + Sync + 'static>(
        key: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        Self::at(key.into(), true)
    }

    /// Returns a closure for `map_err`: the host refused what `key` asks for.
    pub fn host<E: Error + Send + Sync + 'static>(
        key: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        Self::at(key.into(), false)
    }

    fn at<E: Error + Send + Sync + 'static>(
        key: String,
        is_configuration: bool,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self {
            key,
            is_configuration,
            source: source.into(),
        }
    }
}

/// A device that a section of the configuration, or an entry of a list there, asks for.
pub trait FromSection: VirtioDevice + Sized + 'static {
    /// JSON type of the section or entry.
    type Section: Clone + Send + Sync + 'static;
    /// Resource that the monitor hands over, such as a socket that is bound already; `()` for none.
    type Lent;
    /// Metrics of the device type.
    type Metrics: MetricSet + Default + 'static;

    /// Returns the device's place in the machine.
    fn place(_section: &Self::Section) -> Place {
        Place::Other
    }

    /// Returns the device's name in messages, threads and snapshots, such as `drive root`.
    fn name(section: &Self::Section) -> String;

    /// Returns the device's id in the API, for an entry of a list.
    fn id(_section: &Self::Section) -> Option<&str> {
        None
    }

    /// Builds the device and opens the files that it needs. `key` is the section's key in the configuration, such as
    /// `drives[0]`.
    ///
    /// # Errors
    /// [`BuildError`], naming the key.
    fn build(section: &Self::Section, key: &str, lent: Self::Lent) -> Result<Self, BuildError>;
}
