//! Changes of a device while its guest runs.

use std::io;
use std::path::PathBuf;

/// The direction that a rate limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// All traffic of a device without directions; both directions of a network card.
    Both,
    /// From the host to the guest.
    Receive,
    /// From the guest to the host.
    Transmit,
}

/// A change of a device.
#[derive(Clone, Debug)]
pub enum DeviceUpdate {
    /// Opens another file for a disk, or the same file with another size.
    Disk {
        /// Path of the image.
        path: PathBuf,
    },
    /// Changes rate limits. An absent bucket stays, one with size or refill time 0 is disabled, any other is replaced by
    /// a full one.
    Limits {
        /// The direction.
        direction: Direction,
        /// The buckets.
        change: resources::RateLimiter,
    },
    /// Changes the target size of the balloon.
    BalloonTarget {
        /// Size in MiB.
        mib: u32,
    },
    /// Changes the interval of the balloon's statistics.
    StatisticsInterval {
        /// Interval in seconds. It cannot change to or from 0.
        seconds: u16,
    },
    /// Asks the guest for hints of free pages.
    HintingStart {
        /// Sends DONE, which returns the pages to the guest, as soon as the guest has sent all hints.
        acknowledge_on_stop: bool,
    },
    /// Returns the hinted pages to the guest.
    HintingStop,
}

impl DeviceUpdate {
    /// Returns true if the change needs an active driver.
    pub(super) fn needs_driver(&self) -> bool {
        matches!(
            self,
            Self::BalloonTarget { .. } | Self::HintingStart { .. } | Self::HintingStop
        )
    }
}

/// The reason why a device was not changed.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    /// The device type, or its negotiated features, do not support the change.
    #[error("the device does not support this change")]
    Unsupported,
    /// No driver has activated the device yet. The text is Firecracker's.
    #[error("Device not activated yet.")]
    NotActivated,
    /// Statistics cannot be switched on or off after activation. The text is Firecracker's.
    #[error("Statistics cannot be enabled/disabled after activation.")]
    StatisticsState,
    /// The balloon size does not fit the device's field. The text is Firecracker's.
    #[error("Amount of pages requested cannot fit in `u32`.")]
    TooLarge,
    /// The image cannot be used.
    #[error(transparent)]
    File(Box<dyn std::error::Error + Send + Sync>),
    /// The host refused a system call.
    #[error("the host refused the change")]
    Io(#[from] io::Error),
}
