//! The event loop of the main thread.

use super::error::EventLoopError;
use devices::virtio::worker::{Loop, Subscriber};
use event_manager::EventManager;

/// The loop of the main thread.
pub struct MainLoop {
    manager: EventManager<Subscriber>,
}

impl MainLoop {
    /// An empty loop.
    ///
    /// # Errors
    /// [`EventLoopError::Epoll`].
    pub fn new() -> Result<Self, EventLoopError> {
        Ok(Self {
            manager: EventManager::new()?,
        })
    }

    /// A handle for devices.
    pub fn endpoint(&self) -> Loop {
        self.manager.remote_endpoint()
    }

    /// Waits for events and serves them, [`wake`] among them.
    ///
    /// # Errors
    /// [`EventLoopError::Epoll`].
    pub fn turn(&mut self) -> Result<(), EventLoopError> {
        Ok(turn(&mut self.manager)?)
    }
}

/// Waits for events and serves them; a signal in between is none.
pub(super) fn turn(manager: &mut EventManager<Subscriber>) -> event_manager::Result<()> {
    match manager.run() {
        Err(event_manager::Error::Epoll(e)) if e.errno() == libc::EINTR => Ok(()),
        served => served.map(drop),
    }
}
