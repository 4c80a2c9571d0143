//! An event loop on a thread of its own.

use super::error::EventLoopError;
use super::handle::wake;
use super::main_loop::turn;
use devices::virtio::worker::{Loop, Subscriber};
use event_manager::EventManager;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

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
