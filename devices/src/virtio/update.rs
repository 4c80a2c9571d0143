//! What may change on a device while its guest runs.

use std::io;
use std::path::PathBuf;

/// Which way the limits of a device apply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// All of a device that does not tell directions apart; of another both.
    Both,
    /// What the guest receives.
    Receive,
    /// What the guest sends.
    Transmit,
}

/// A change of a device.
#[derive(Clone, Debug)]
pub enum DeviceUpdate {
    /// Another file behind a disk, or the same one with another size.
    Disk {
        /// The image.
        path: PathBuf,
    },
    /// Other limits: an absent bucket goes on, one of size or refill time 0 is switched off, any other
    /// is replaced by a full one.
    Limits {
        /// Of which direction.
        direction: Direction,
        /// The buckets.
        change: resources::RateLimiter,
    },
    /// Another size of the balloon.
    BalloonTarget {
        /// In MiB.
        mib: u32,
    },
    /// Another time between two statistics of the balloon.
    StatisticsInterval {
        /// In seconds; to and from 0 it cannot change.
        seconds: u16,
    },
    /// Asks the guest for hints of free pages.
    HintingStart {
        /// Gives the guest its pages back as soon as it has told of all.
        acknowledge_on_stop: bool,
    },
    /// Gives the guest the pages back of which it told.
    HintingStop,
}

impl DeviceUpdate {
    /// Whether there must be a driver to tell.
    pub(super) fn needs_driver(&self) -> bool {
        matches!(
            self,
            Self::BalloonTarget { .. } | Self::HintingStart { .. } | Self::HintingStop
        )
    }
}

/// Why a device is as before.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// Another type of device, or one without the feature.
    #[error("the device does not support this change")]
    Unsupported,
    /// No driver has taken the device yet; the text is the compatible monitor's.
    #[error("Device not activated yet.")]
    NotActivated,
    /// Statistics of the balloon are there from the start or not at all.
    #[error("Statistics cannot be enabled/disabled after activation.")]
    StatisticsState,
    /// A balloon larger than can be told to the guest.
    #[error("Amount of pages requested cannot fit in `u32`.")]
    TooLarge,
    /// The file cannot be used.
    #[error(transparent)]
    File(Box<dyn std::error::Error + Send + Sync>),
    /// The host refused.
    #[error("the host refuses the change")]
    Io(#[from] io::Error),
}
