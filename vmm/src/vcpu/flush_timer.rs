//! A timer that writes collected serial output which no exit follows.

use super::coalesced::FLUSH_MS;
use super::context::VmContext;
use crate::console::Output;
use event_manager::{EventOps, EventSet, Events, MutEventSubscriber};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

/// Time until the next try if the output is not read.
const STUCK_MS: i64 = 200;
/// Times until further looks after one that found nothing: the guest may have lost its processor between the access that
/// armed the timer and the output that follows it.
const LATER_MS: [i64; 3] = [100, 500, 2500];

/// The timer as a subscriber of the event loop.
pub struct FlushTimer {
    context: Weak<VmContext>,
    output: Output,
    /// A duplicate for the loop, which may outlive the machine.
    watched: OwnedFd,
}

impl FlushTimer {
    /// Creates a subscriber that writes the last output of the vCPUs of `context` when `output` can take it. Returns `None` if
    /// KVM collects nothing.
    ///
    /// # Errors
    /// The host has no more descriptors.
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
            // This loop serves the network, too, and must not block. A vCPU writes the output, or the next look does.
            coalesced.arm(STUCK_MS);
            return;
        }
        coalesced.armed.store(false, Ordering::Release);
        let next = if coalesced.drain(&context.buses) {
            coalesced.quiet.store(0, Ordering::Release);
            Some(FLUSH_MS)
        } else {
            // After a few more looks the timer stops, so that an idle guest causes no wake-ups.
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
