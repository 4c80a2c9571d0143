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
    /// Until it was waited for.
    confined: Option<mpsc::Receiver<io::Result<()>>>,
}

impl Drop for SpawnedLoop {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        wake(&self.endpoint);
    }
}

impl SpawnedLoop {
    /// Starts the thread `name`, which calls `confine` before it serves anything. See [`Self::wait_until_confined`].
    ///
    /// # Errors
    /// No more threads or descriptors.
    pub fn start(
        name: &str,
        confine: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, EventLoopError> {
        // Made here, so that nobody waits for the thread to come up.
        let manager = EventManager::<Subscriber>::new()?;
        let endpoint = manager.remote_endpoint();
        let (tx, confined) = mpsc::channel();
        let ended = Arc::new(AtomicBool::new(false));
        let (loop_name, loop_ended) = (name.to_owned(), ended.clone());
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(manager, &loop_name, confine, tx, &loop_ended))
            .map_err(|source| EventLoopError::Thread {
                name: name.to_owned(),
                source,
            })?;
        Ok(Self {
            endpoint,
            ended,
            thread: Some(thread),
            confined: Some(confined),
        })
    }

    /// Waits until the thread is confined.
    ///
    /// # Errors
    /// What its `confine` says: nothing of the guest must run.
    pub fn wait_until_confined(&mut self) -> Result<(), EventLoopError> {
        let confined = self.confined.take().map(|confined| confined.recv());
        let confined = match confined {
            None => Ok(()),
            Some(result) => result.unwrap_or_else(|gone| Err(io::Error::other(gone))),
        };
        confined.map_err(|source| EventLoopError::Thread {
            name: self.name(),
            source,
        })
    }

    fn name(&self) -> String {
        let thread = self.thread.as_ref().map(JoinHandle::thread);
        let name = thread.and_then(std::thread::Thread::name);
        name.unwrap_or_default().to_owned()
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
    mut manager: EventManager<Subscriber>,
    name: &str,
    confine: impl FnOnce() -> io::Result<()>,
    confined: mpsc::Sender<io::Result<()>>,
    ended: &AtomicBool,
) {
    let result = confine();
    let may_serve = result.is_ok();
    // Nobody listens if the start has failed elsewhere.
    let _ = confined.send(result);
    drop(confined);
    if !may_serve {
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
