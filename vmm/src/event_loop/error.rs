//! Failures of event loops.

use std::io;

/// The loop cannot be made or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum EventLoopError {
    /// epoll failed.
    #[error("the event loop failed: {0}")]
    Epoll(String),
    /// No more threads.
    #[error("cannot start the thread {name}")]
    Thread {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<event_manager::Error> for EventLoopError {
    fn from(error: event_manager::Error) -> Self {
        Self::Epoll(error.to_string())
    }
}
