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

/// An event loop on a thread of its own. The thread ends after this handle is dropped.
pub struct SpawnedLoop {
    endpoint: Loop,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
    /// The thread's pending confinement, until it was waited for.
    confinement: Option<Confinement>,
}

impl Drop for SpawnedLoop {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        wake(&self.endpoint);
    }
}

impl SpawnedLoop {
    /// Starts the thread `name`, which calls `confine` first. [`Self::wait_until_confined`] returns its result.
    ///
    /// # Errors
    /// The host has no more threads or descriptors.
    pub fn start(
        name: &str,
        confine: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> Result<Self, EventLoopError> {
        // The loop is created here, so that the caller need not wait for the thread to start.
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
    /// The kernel refused the filter: the guest must not run.
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

    /// Returns a handle to the loop.
    pub fn endpoint(&self) -> Loop {
        self.endpoint.clone()
    }

    /// Ends the thread and waits for it.
    pub fn end(mut self) {
        let thread = self.thread.take();
        drop(self);
        // The thread cannot have panicked: a panic aborts the process.
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
