//! Why the saved state of a platform device cannot be loaded. The states are serde types of their own beside each
//! device, so that their format changes only on purpose, and may be anybody's.
//!
//! Interrupt controllers must have their state before such a device gets its own: what it has pending it
//! raises at once.

use std::io;

/// A saved platform device is refused; the one it was to be loaded into is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PlatformStateError {
    /// More bytes wait than the device can hold.
    #[error("the saved {device} has {saved} bytes waiting, and at most {most} can be")]
    TooMuch {
        /// Which device.
        device: &'static str,
        /// In the state.
        saved: usize,
        /// What it holds.
        most: usize,
    },
    /// The guest cannot be signalled.
    #[error("cannot signal the guest")]
    Signal(#[source] io::Error),
}
