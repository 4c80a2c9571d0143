//! Failures of event loops.

use std::io;

/// Why an event loop failed.
#[derive(Debug, thiserror::Error)]
pub enum EventLoopError {
    /// epoll failed.
    #[error("the event loop failed: {0}")]
    Epoll(String),
    /// The host has no more threads, or refused the thread's filter.
    #[error("cannot start the thread {name}")]
    Thread {
        /// The thread's name.
        name: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl From<event_manager::Error> for EventLoopError {
    fn from(error: event_manager::Error) -> Self {
        Self::Epoll(error.to_string())
    }
}
