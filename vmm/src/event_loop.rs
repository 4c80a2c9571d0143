//! Event loops: the one of the main thread, and one for each disk, whose blocking operations must
//! stall neither the network nor the console.

use devices::virtio::worker::{Loop, Subscriber};
use event_manager::{EventManager, SubscriberId, SubscriberOps};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

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

/// Makes the loop behind `endpoint` come round once more.
pub fn wake(endpoint: &Loop) {
    if let Err(e) = endpoint.kick() {
        log::error!("cannot wake the event loop: {e}");
    }
}

/// A subscriber that was added to a loop.
pub struct Added {
    endpoint: Loop,
    id: Arc<Mutex<Option<SubscriberId>>>,
}

/// Adds `subscriber`, which owns what it watches, to the loop behind `endpoint`, from any thread.
pub fn add(endpoint: &Loop, subscriber: Subscriber) -> Added {
    let id = Arc::new(Mutex::new(None));
    let told = id.clone();
    fire(endpoint, move |ops| {
        *devices::lock(&told) = Some(ops.add_subscriber(subscriber));
    });
    Added {
        endpoint: endpoint.clone(),
        id,
    }
}

impl Added {
    /// Takes the subscriber off the loop and drops it, a turn later.
    pub fn remove(self) {
        let id = self.id;
        fire(&self.endpoint, move |ops| {
            let id = devices::lock(&id).take();
            if let Some(Err(e)) = id.map(|id| ops.remove_subscriber(id)) {
                log::error!("cannot leave the event loop: {e}");
            }
        });
    }
}

fn fire(
    endpoint: &Loop,
    call: impl FnOnce(&mut dyn SubscriberOps<Subscriber = Subscriber>) + Send + 'static,
) {
    if let Err(e) = endpoint.fire(call) {
        log::error!("cannot reach the event loop: {e}");
    }
}

/// A loop on a thread of its own, which ends when this is dropped, after what it does then.
pub struct SpawnedLoop {
    endpoint: Loop,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for SpawnedLoop {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        wake(&self.endpoint);
    }
}

impl SpawnedLoop {
    /// Starts the thread `name`, which calls `confine` before it serves anything.
    ///
    /// # Errors
    /// No more threads or descriptors, or what `confine` says.
    pub fn start(
        name: &str,
        confine: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, EventLoopError> {
        let (tx, rx) = mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let (loop_name, loop_ended) = (name.to_owned(), ended.clone());
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(&loop_name, confine, &tx, &loop_ended))
            .map_err(|source| EventLoopError::Thread {
                name: name.to_owned(),
                source,
            })?;
        let gone = |_| EventLoopError::Epoll(format!("the thread {name} ended"));
        Ok(Self {
            endpoint: rx.recv().map_err(gone)??,
            ended,
            thread: Some(thread),
        })
    }

    /// A handle for the device.
    pub fn endpoint(&self) -> Loop {
        self.endpoint.clone()
    }

    /// Ends the thread and waits for it.
    pub fn end(mut self) {
        let thread = self.thread.take();
        drop(self);
        // A panic aborts the process, so there is no other end.
        let _ = thread.map(JoinHandle::join);
    }
}

fn serve(
    name: &str,
    confine: impl FnOnce() -> io::Result<()>,
    started: &mpsc::Sender<Result<Loop, EventLoopError>>,
    ended: &AtomicBool,
) {
    let mut manager = match EventManager::<Subscriber>::new() {
        Ok(manager) => manager,
        Err(e) => return drop(started.send(Err(e.into()))),
    };
    // The endpoint may cost a descriptor, so it is made before.
    let endpoint = manager.remote_endpoint();
    let confined = confine().map_err(|source| EventLoopError::Thread {
        name: name.to_owned(),
        source,
    });
    if confined.is_err() {
        return drop(started.send(confined.map(|()| endpoint)));
    }
    if started.send(Ok(endpoint)).is_err() {
        return;
    }
    while !ended.load(Ordering::Acquire) {
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
