//! Event loops: the one of the main thread, and one for each disk, whose blocking operations must
//! stall neither the network nor the console.

use devices::virtio::worker::{Loop, Subscriber};
use event_manager::{EventManager, SubscriberOps};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

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
        source: std::io::Error,
    },
}

impl From<event_manager::Error> for EventLoopError {
    fn from(error: event_manager::Error) -> Self {
        Self::Epoll(error.to_string())
    }
}

/// The loop of the main thread.
pub struct MainLoop {
    manager: EventManager<Subscriber>,
    stopped: Arc<AtomicBool>,
}

/// Ends a [`MainLoop`] from any thread.
#[derive(Clone)]
pub struct Stopper {
    endpoint: Loop,
    stopped: Arc<AtomicBool>,
}

impl Stopper {
    /// Makes [`MainLoop::run`] return.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // The loop looks at the flag after each event, of which this is one.
        if let Err(e) = self
            .endpoint
            .fire(|_: &mut dyn SubscriberOps<Subscriber = Subscriber>| {})
        {
            log::error!("cannot wake the event loop: {e}");
        }
    }
}

impl MainLoop {
    /// An empty loop.
    ///
    /// # Errors
    /// [`EventLoopError::Epoll`].
    pub fn new() -> Result<Self, EventLoopError> {
        Ok(Self {
            manager: EventManager::new()?,
            stopped: Arc::new(AtomicBool::new(false)),
        })
    }

    /// A handle for devices.
    pub fn endpoint(&self) -> Loop {
        self.manager.remote_endpoint()
    }

    /// A handle to end the loop.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            endpoint: self.endpoint(),
            stopped: self.stopped.clone(),
        }
    }

    /// Adds `subscriber` from the loop's own thread.
    pub fn add(&mut self, subscriber: Subscriber) {
        self.manager.add_subscriber(subscriber);
    }

    /// Serves until stopped.
    ///
    /// # Errors
    /// [`EventLoopError::Epoll`].
    pub fn run(&mut self) -> Result<(), EventLoopError> {
        while !self.stopped.load(Ordering::Acquire) {
            turn(&mut self.manager)?;
        }
        Ok(())
    }
}

/// Starts a thread with a loop of its own, which lives as long as the process.
///
/// # Errors
/// No more threads or descriptors.
pub fn spawn(name: &str) -> Result<Loop, EventLoopError> {
    let (tx, rx) = mpsc::channel();
    let loop_name = name.to_owned();
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || serve(&loop_name, &tx))
        .map_err(|source| EventLoopError::Thread {
            name: name.to_owned(),
            source,
        })?;
    let ended = |_| EventLoopError::Epoll(format!("the thread {name} ended"));
    Ok(rx.recv().map_err(ended)??)
}

fn serve(name: &str, started: &mpsc::Sender<event_manager::Result<Loop>>) {
    let mut manager = match EventManager::<Subscriber>::new() {
        Ok(manager) => manager,
        Err(e) => return drop(started.send(Err(e))),
    };
    if started.send(Ok(manager.remote_endpoint())).is_err() {
        return;
    }
    loop {
        if let Err(e) = turn(&mut manager) {
            return log::error!("the event loop {name} failed: {e}");
        }
    }
}

/// Waits for events and serves them; a signal in between is none.
fn turn(manager: &mut EventManager<Subscriber>) -> event_manager::Result<()> {
    match manager.run() {
        Err(event_manager::Error::Epoll(e)) if e.errno() == libc::EINTR => Ok(()),
        served => served.map(drop),
    }
}
