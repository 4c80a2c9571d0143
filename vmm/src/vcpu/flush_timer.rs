//! Brings out serial output that KVM collected and the guest does not ask after.

use super::coalesced::FLUSH_MS;
use super::context::VmContext;
use crate::console::Output;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// When to look again at an output that nobody reads.
const STUCK_MS: i64 = 200;
/// When to look again after a look that found nothing: the guest may have lost its processor between
/// the access that set the timer and the output that follows it.
const LATER_MS: [i64; 3] = [100, 500, 2500];

/// The timer as a subscriber of the event loop.
pub struct FlushTimer {
    context: Weak<VmContext>,
    output: Output,
    /// The loop's own: the guest may be gone before the loop forgets the timer.
    watched: OwnedFd,
}

impl FlushTimer {
    /// Brings out what the vCPUs of `guest` wrote last, when `output` takes it. `None` if nothing is
    /// collected.
    ///
    /// # Errors
    /// No more descriptors.
    pub fn new(context: &Arc<VmContext>, output: Output) -> io::Result<Option<Self>> {
        let Some(coalesced) = &context.coalesced else {
            return Ok(None);
        };
        Ok(Some(Self {
            context: Arc::downgrade(context),
            output,
            watched: coalesced.timer.as_fd().try_clone_to_owned()?,
        }))
    }
}

impl MutEventSubscriber for FlushTimer {
    fn init(&mut self, ops: &mut EventOps<'_>) {
        if let Err(e) = ops.add(Events::new(&self.watched, EventSet::IN)) {
            log::error!("cannot watch the console's timer: {e}");
        }
    }

    fn process(&mut self, _events: Events, _ops: &mut EventOps<'_>) {
        let Some(context) = self.context.upgrade() else {
            return;
        };
        let Some(coalesced) = &context.coalesced else {
            return;
        };
        let _ = coalesced.timer.wait();
        if !self.output.is_writable() {
            // This loop serves the network too and must not block: a vCPU may, or we look again.
            coalesced.arm(STUCK_MS);
            return;
        }
        coalesced.armed.store(false, Ordering::Release);
        let next = if coalesced.drain(&context.buses) {
            coalesced.quiet.store(0, Ordering::Release);
            Some(FLUSH_MS)
        } else {
            // A few more looks and then none: an idle guest costs no wake-ups.
            let quiet = coalesced.quiet.fetch_add(1, Ordering::AcqRel);
            LATER_MS.get(quiet).copied()
        };
        if let Some(ms) = next
            && !coalesced.armed.swap(true, Ordering::AcqRel)
        {
            coalesced.arm(ms);
        }
    }
}
