//! Errors of loading the saved state of a platform device.
//!
//! The saved states are serde types of their own beside each device, so that their format changes only on purpose. Their
//! content is untrusted. Interrupt controllers must be restored before a platform device, which raises its pending
//! interrupt at once.

use std::io;

/// The saved state of a platform device was refused. The device is unchanged.
#[derive(Debug, thiserror::Error)]
pub enum PlatformStateError {
    /// The state has more queued bytes than the device can hold.
    #[error("the saved {device} has {saved} bytes queued, more than the limit of {most}")]
    TooMuch {
        /// The device.
        device: &'static str,
        /// Bytes in the state.
        saved: usize,
        /// The device's limit.
        most: usize,
    },
    /// The guest cannot be interrupted.
    #[error("cannot interrupt the guest")]
    Signal(#[source] io::Error),
}
