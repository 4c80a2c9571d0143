//! The event loop of the main thread.

use super::error::EventLoopError;
use devices::virtio::worker::{Loop, Subscriber};
use event_manager::EventManager;

/// The event loop of the main thread.
pub struct MainLoop {
    manager: EventManager<Subscriber>,
}

impl MainLoop {
    /// Creates an empty loop.
    ///
    /// # Errors
    /// [`EventLoopError::Epoll`].
    pub fn new() -> Result<Self, EventLoopError> {
        Ok(Self {
            manager: EventManager::new()?,
        })
    }

    /// Returns a handle to the loop.
    pub fn endpoint(&self) -> Loop {
        self.manager.remote_endpoint()
    }

    /// Waits for events and serves them. [`wake`](super::wake) ends the wait.
    ///
    /// # Errors
    /// [`EventLoopError::Epoll`].
    pub fn turn(&mut self) -> Result<(), EventLoopError> {
        Ok(turn(&mut self.manager)?)
    }
}

/// Waits for events and serves them. A signal ends the wait without an error.
pub(super) fn turn(manager: &mut EventManager<Subscriber>) -> event_manager::Result<()> {
    match manager.run() {
        Err(event_manager::Error::Epoll(e)) if e.errno() == libc::EINTR => Ok(()),
        served => served.map(drop),
    }
}
