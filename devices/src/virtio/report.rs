//! What a device in use can be asked for.

use resources::{BalloonStats, HintingStatus};

/// What a device tells of itself.
#[expect(
    clippy::large_enum_variant,
    reason = "made for one request and taken apart at once"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Nothing.
    None,
    /// A balloon.
    Balloon(BalloonReport),
}

/// A balloon in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BalloonReport {
    /// Its configuration as it is now.
    pub config: resources::Balloon,
    /// `None` if statistics are off.
    pub statistics: Option<BalloonStats>,
    /// `None` if hinting is off.
    pub hinting: Option<HintingStatus>,
}
