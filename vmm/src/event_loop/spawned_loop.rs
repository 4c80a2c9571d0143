//! An event loop on a thread of its own.

use super::error::EventLoopError;
use super::handle::wake;
use super::main_loop::turn;
use crate::process::confined_thread::{self, Confinement};
use devices::virtio::worker::{Loop, Subscriber};
use event_manager::EventManager;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

/// A loop on a thread of its own, which ends when this is dropped, after what it does then.
pub struct SpawnedLoop {
    endpoint: Loop,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// Until it was waited for.
    confinement: Option<Confinement>,
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
        let ended = Arc::new(AtomicBool::new(false));
        let (loop_name, loop_ended) = (name.to_owned(), ended.clone());
        let started = confined_thread::spawn(name, confine, move |is_confined| {
            if is_confined {
                serve(manager, &loop_name, &loop_ended);
            }
        });
        let (thread, confinement) = started.map_err(|source| EventLoopError::Thread {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self {
            endpoint,
            ended,
            thread: Some(thread),
            confinement: Some(confinement),
        })
    }

    /// Waits until the thread is confined.
    ///
    /// # Errors
    /// What its `confine` says: nothing of the guest must run.
    pub fn wait_until_confined(&mut self) -> Result<(), EventLoopError> {
        let confined = self.confinement.take().map_or(Ok(()), Confinement::wait);
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

fn serve(mut manager: EventManager<Subscriber>, name: &str, ended: &AtomicBool) {
    while !ended.load(Ordering::Acquire) {
        if let Err(e) = turn(&mut manager) {
            return log::error!("the event loop {name} failed: {e}");
        }
    }
}
