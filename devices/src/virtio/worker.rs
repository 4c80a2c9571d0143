//! Runs a device's queue handler on an event loop. All devices use this one subscriber.
//!
//! A vCPU that starts or resets a device posts to the loop and never waits for it. The loop owns a duplicate of every
//! descriptor it watches: a descriptor that is closed before epoll forgets it could no longer be removed, and would wake
//! the loop for ever.

use super::device::QueueHandler;
use super::queue::{DeviceQueue, QueueError};
use crate::lock;
use crate::util::source::Source;
use crate::virtio::interrupt::{Cause, Interrupt};
use event_manager::{
    EventOps, EventSet, Events, MutEventSubscriber, RemoteEndpoint, SubscriberId, SubscriberOps,
};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::EventFd;

/// An event loop subscriber.
pub type Subscriber = Box<dyn MutEventSubscriber + Send>;

/// A handle to an event loop: the shared one, or that of one disk.
pub type Loop = RemoteEndpoint<Subscriber>;

/// A running device: its handler and its queues.
pub struct Running {
    /// The device's queue-serving half.
    pub handler: Box<dyn QueueHandler>,
    /// The queues the driver set up.
    pub queues: Vec<DeviceQueue>,
}

/// Records and signals that a device needs a reset (section 2.1.2).
pub struct NeedsReset {
    set: AtomicBool,
    interrupt: Arc<dyn Interrupt>,
}

impl NeedsReset {
    /// Creates an unset flag, which interrupts through `interrupt`.
    pub fn new(interrupt: Arc<dyn Interrupt>) -> Self {
        Self {
            set: AtomicBool::new(false),
            interrupt,
        }
    }

    /// Returns true if the flag was set since the last [`Self::clear`].
    pub fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// Clears the flag after a reset.
    pub fn clear(&self) {
        self.set.store(false, Ordering::Release);
    }

    /// Sets the flag without a signal: the driver knows.
    pub fn set(&self) {
        self.set.store(true, Ordering::Release);
    }

    /// Sets the flag and interrupts the driver.
    pub fn raise(&self) {
        self.set();
        if let Err(e) = self.interrupt.trigger(Cause::Config) {
            log::error!("cannot interrupt the guest: {e}");
        }
    }
}

/// Largest number of stopped workers of one device that its loop has not removed yet. Without the limit a guest that starts
/// and resets a device faster than a busy loop turns would use up the descriptors of the process.
const MAX_LEAVING: usize = 16;

/// Counts the workers of one device that hold descriptors.
#[derive(Clone, Default)]
pub struct WorkerCount(Arc<()>);

/// Event loop subscriber of one device. `running` is taken when the device stops.
struct Worker {
    _counted: WorkerCount,
    running: Option<Running>,
    needs_reset: Arc<NeedsReset>,
    /// Doorbells by queue; `None` for a queue that the driver did not enable.
    kicks: Vec<Option<EventFd>>,
    sources: Vec<Source>,
    id: Option<SubscriberId>,
}

/// The subscriber. event-manager serves `Arc<Mutex<T>>` as well, but unwraps a poisoned lock.
struct SharedWorker(Arc<Mutex<Worker>>);

/// Handle with which the transport stops a running device.
pub struct WorkerHandle {
    worker: Arc<Mutex<Worker>>,
    event_loop: Loop,
}

impl WorkerHandle {
    /// Posts `running` to `event_loop` without waiting. `kicks` are duplicates of the doorbells, one for each enabled queue.
    /// Every enabled queue is served once at the start, without a kick.
    ///
    /// # Errors
    /// The loop has ended or lags far behind, or a descriptor could not be duplicated.
    pub fn start(
        event_loop: &Loop,
        running: Running,
        kicks: Vec<Option<EventFd>>,
        needs_reset: Arc<NeedsReset>,
        count: &WorkerCount,
    ) -> io::Result<Self> {
        if Arc::strong_count(&count.0) > MAX_LEAVING {
            return Err(io::Error::other("its event loop lags far behind"));
        }
        let sources = running.handler.sources()?;
        for kick in kicks.iter().flatten() {
            kick.write(1)?;
        }
        let worker = Arc::new(Mutex::new(Worker {
            _counted: count.clone(),
            running: Some(running),
            needs_reset,
            kicks,
            sources,
            id: None,
        }));
        let added = worker.clone();
        event_loop
            .fire(
                move |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
                    let id = ops.add_subscriber(Box::new(SharedWorker(added.clone())));
                    lock(&added).id = Some(id);
                },
            )
            .map_err(|e| io::Error::other(e.to_string()))?;
        Ok(Self {
            worker,
            event_loop: event_loop.clone(),
        })
    }

    /// Removes the device from the loop with no request in flight. Waits for the batch being served, but never for the
    /// loop, so that a vCPU may call it.
    pub fn stop(self) -> Option<Running> {
        let mut running = lock(&self.worker).running.take();
        if let Some(Running { handler, queues }) = &mut running
            && let Err(e) = handler.drain(queues)
        {
            log::debug!("stopped a device with a broken queue: {e}");
        }
        let worker = self.worker;
        let removed = self.event_loop.fire(
            move |ops: &mut dyn SubscriberOps<Subscriber = Subscriber>| {
                let id = lock(&worker).id.take();
                if let Some(Err(e)) = id.map(|id| ops.remove_subscriber(id)) {
                    log::error!("cannot leave the event loop: {e}");
                }
            },
        );
        if let Err(e) = removed {
            log::error!("cannot reach the event loop: {e}");
        }
        running
    }
}

impl Worker {
    fn watch(&self, ops: &mut EventOps<'_>) {
        if self.running.is_none() {
            // The device was stopped before the loop served it. The next worker must not be disturbed.
            return;
        }
        let kicks = self.kicks.iter().map(|kick| {
            let fd = kick.as_ref().map(AsRawFd::as_raw_fd);
            (fd, EventSet::IN)
        });
        let sources = self.sources.iter();
        let sources = sources.map(|source| (Some(source.fd.as_raw_fd()), source.events));
        for (token, (fd, events)) in (0_u32..).zip(kicks.chain(sources)) {
            let Some(fd) = fd else {
                continue;
            };
            if let Err(e) = ops.add(Events::with_data_raw(fd, token, events)) {
                log::error!("cannot watch descriptor {token} of a device: {e}");
                self.needs_reset.raise();
            }
        }
    }

    fn dispatch(&mut self, token: usize) -> Result<(), QueueError> {
        let Some(Running { handler, queues }) = &mut self.running else {
            return Ok(());
        };
        match self.kicks.get(token) {
            Some(kick) => {
                // Non-blocking, because another event may have emptied it.
                let _ = kick.as_ref().map(EventFd::read);
                handler.on_queue(token, queues)
            }
            None => handler.on_source(token - self.kicks.len(), queues),
        }
    }
}

impl MutEventSubscriber for SharedWorker {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        lock(&self.0).watch(ops);
    }

    fn process(&mut self, events: Events, ops: &mut EventOps<'_>) {
        let mut worker = lock(&self.0);
        if worker.running.is_none() {
            // Stopped; the loop removes it soon.
            return;
        }
        let broken = worker.needs_reset.is_set();
        let result = match broken {
            true => Ok(()),
            false => worker.dispatch(events.data() as usize),
        };
        if let Err(e) = &result {
            log::warn!("a device stopped until its driver resets it: {e}");
            worker.needs_reset.raise();
        }
        if broken || result.is_err() {
            // Nothing is served until the reset, so nothing may wake the loop.
            if let Err(e) = ops.remove(events) {
                log::error!("cannot stop watching a broken device: {e}");
            }
        }
    }
}

#[cfg(test)]
#[path = "worker_test.rs"]
mod worker_test;
