//! Reports of a device in use.

use resources::{BalloonStats, HintingStatus};

/// The report of a device.
#[expect(
    clippy::large_enum_variant,
    reason = "made for one request and taken apart at once"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// The device has nothing to report.
    None,
    /// A balloon.
    Balloon(BalloonReport),
}

/// State of a balloon in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalloonReport {
    /// Current configuration.
    pub config: resources::Balloon,
    /// Latest statistics; `None` if they are disabled.
    pub statistics: Option<BalloonStats>,
    /// Progress of free page hinting; `None` if it is disabled.
    pub hinting: Option<HintingStatus>,
}
