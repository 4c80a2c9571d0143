//! One running virtqueue: pops descriptor chains and publishes used entries.

use crate::GuestMemory;
use crate::virtio::buffers::ChainBuffers;
use crate::virtio::interrupt::{Cause, Interrupt};
use std::io;
use std::num::Wrapping;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use virtio_bindings::virtio_ring::VRING_AVAIL_F_NO_INTERRUPT;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};
use vmm_sys_util::eventfd::EventFd;

/// The driver broke the queue protocol, or the guest could not be interrupted.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The ring is malformed.
    #[error("malformed ring")]
    Ring(#[from] virtio_queue::Error),
    /// Part of the ring is outside guest memory.
    #[error("the ring is outside guest memory")]
    Memory(#[from] vm_memory::GuestMemoryError),
    /// The device used a queue that the driver did not enable.
    #[error("queue {0} is not enabled")]
    NotReady(u16),
    /// The guest could not be interrupted.
    #[error("cannot interrupt the guest")]
    Signal(#[source] io::Error),
}

/// A descriptor chain: an iterator over descriptors.
pub type Chain<'m> = DescriptorChain<&'m GuestMemory>;

/// The result of serving a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// The request is complete; this many bytes were written to the guest.
    Done(u32),
    /// The request was taken. [`DeviceQueue::complete`] completes it later.
    Later,
    /// The request was not taken. Serving stops, and the chain is offered again next time.
    NotYet,
}

/// The result of placing a message for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// The driver received it.
    Yes,
    /// The driver provided too few buffers so far. It kicks when it adds some.
    NoRoom,
    /// The message fits no buffers of this driver and must be dropped.
    TooLong,
}

/// The layout of a message over chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One chain.
    OneChain,
    /// Several chains. Their number is stored as 16 bits at this offset of the message.
    Merged {
        /// Offset of the number in the message.
        count_at: usize,
    },
}

/// A virtqueue in use by a device.
pub struct DeviceQueue {
    index: u16,
    /// `None` if the driver left the queue disabled.
    queue: Option<Queue>,
    mem: GuestMemory,
    interrupt: Arc<dyn Interrupt>,
    /// The queue's doorbell. The device rings it to continue after other devices had a turn.
    kick: EventFd,
    /// Used index at the last decision about an interrupt.
    signalled: u16,
}

impl DeviceQueue {
    /// Creates a running queue. `queue` must be valid for `mem`; `kick` is its doorbell.
    pub(super) fn new(
        index: u16,
        queue: Option<Queue>,
        mem: GuestMemory,
        interrupt: Arc<dyn Interrupt>,
        kick: EventFd,
    ) -> Self {
        let signalled = queue.as_ref().map_or(0, QueueT::next_used);
        Self {
            index,
            queue,
            mem,
            interrupt,
            kick,
            signalled,
        }
    }

    /// Returns the positions in the available and the used ring, to keep while the device is stopped.
    pub(super) fn positions(&self) -> Option<(u16, u16)> {
        let queue = self.queue.as_ref()?;
        Some((queue.next_avail(), queue.next_used()))
    }

    /// Passes available chains to `serve`, and interrupts the guest at most once.
    ///
    /// One call serves at most as many chains as the queue is long. A driver that refills the queue as fast as it is served
    /// gets its next turn after the other devices of the loop.
    ///
    /// # Errors
    /// The ring is malformed, or the guest cannot be interrupted.
    pub fn serve(
        &mut self,
        mut serve: impl FnMut(&GuestMemory, Chain<'_>) -> Served,
    ) -> Result<(), QueueError> {
        let queue = ready(self.index, &mut self.queue)?;
        let mem = &self.mem;
        let mut budget = queue.size();
        queue.disable_notification(mem)?;
        loop {
            if budget == 0 {
                self.kick.write(1).map_err(QueueError::Signal)?;
                break;
            }
            // A check that finds nothing counts like a chain: an available index that another vCPU moves back and forth
            // must not hold the loop.
            budget -= 1;
            let Some(chain) = pop(queue, mem)? else {
                if queue.enable_notification(mem)? {
                    queue.disable_notification(mem)?;
                    continue;
                }
                break;
            };
            let head = chain.head_index();
            match serve(mem, chain) {
                Served::Done(len) => publish(queue, mem, &[(head, len)])?,
                Served::Later => {}
                Served::NotYet => {
                    // The device retries by itself, so a kick for the chains that are there is superfluous.
                    queue.go_to_previous_position();
                    break;
                }
            }
        }
        self.signal()
    }

    /// Copies `message` into the buffers that the driver made available, without an interrupt. The caller calls
    /// [`Self::signal`] once for several messages.
    ///
    /// # Errors
    /// The ring is malformed.
    pub fn place(&mut self, message: &mut [u8], layout: Layout) -> Result<Placed, QueueError> {
        let queue = ready(self.index, &mut self.queue)?;
        let mem = &self.mem;
        let mut chains: Vec<(u16, ChainBuffers)> = Vec::new();
        let mut room = 0;
        let mut looked_again = false;
        queue.disable_notification(mem)?;
        while room < message.len() {
            let Some(chain) = pop(queue, mem)? else {
                // The index of a correct driver only grows, so a second look finds the chain. An index that another vCPU
                // moves back and forth must not hold the loop.
                if queue.enable_notification(mem)? && !looked_again {
                    looked_again = true;
                    queue.disable_notification(mem)?;
                    continue;
                }
                rewind(queue, chains.len());
                return Ok(Placed::NoRoom);
            };
            looked_again = false;
            let head = chain.head_index();
            let buffers = ChainBuffers::collect(chain).unwrap_or_default();
            let more = buffers.writable.len();
            if more == 0 {
                // A device-readable or broken chain cannot carry a message.
                rewind(queue, chains.len() + 1);
                return Err(virtio_queue::Error::InvalidChain.into());
            }
            room += more;
            chains.push((head, buffers));
            if layout == Layout::OneChain && room < message.len() {
                rewind(queue, 1);
                return Ok(Placed::TooLong);
            }
            if chains.len() >= usize::from(queue.size()) && room < message.len() {
                rewind(queue, chains.len());
                return Ok(Placed::TooLong);
            }
        }
        if let Layout::Merged { count_at } = layout {
            let count = u16::try_from(chains.len()).unwrap_or(u16::MAX);
            if let Some(field) = message.get_mut(count_at..count_at + 2) {
                field.copy_from_slice(&count.to_le_bytes());
            }
        }
        let mut rest: &[u8] = message;
        let mut used = Vec::with_capacity(chains.len());
        for (head, buffers) in &chains {
            let len = rest.len().min(buffers.writable.len());
            let (part, after) = rest.split_at(len);
            buffers.writable.write(mem, part)?;
            rest = after;
            used.push((*head, u32::try_from(len).unwrap_or(u32::MAX)));
        }
        publish(queue, mem, &used)?;
        Ok(Placed::Yes)
    }

    /// Returns true if the driver enabled the queue.
    pub fn is_ready(&self) -> bool {
        self.queue.is_some()
    }

    /// Rings the queue's own doorbell, to continue after other devices had a turn.
    ///
    /// # Errors
    /// The event descriptor cannot be written.
    pub fn ring(&self) -> Result<(), QueueError> {
        self.kick.write(1).map_err(QueueError::Signal)
    }

    /// Signals to the driver that the device's configuration changed.
    ///
    /// # Errors
    /// The event descriptor cannot be written.
    pub fn signal_config_change(&self) -> Result<(), QueueError> {
        let told = self.interrupt.trigger(Cause::Config);
        told.map_err(QueueError::Signal)
    }

    /// Completes a chain that was [`Served::Later`]; `len` bytes were written to the guest.
    ///
    /// # Errors
    /// The ring is malformed, or the guest cannot be interrupted.
    pub fn complete(&mut self, head: u16, len: u32) -> Result<(), QueueError> {
        let queue = ready(self.index, &mut self.queue)?;
        publish(queue, &self.mem, &[(head, len)])?;
        self.signal()
    }

    /// Interrupts the guest if the driver wants to be notified of the new used entries (section 2.7.10).
    ///
    /// # Errors
    /// The ring is malformed or the event descriptor cannot be written.
    pub fn signal(&mut self) -> Result<(), QueueError> {
        let queue = ready(self.index, &mut self.queue)?;
        let (old, new) = (Wrapping(self.signalled), Wrapping(queue.next_used()));
        if old == new {
            return Ok(());
        }
        self.signalled = new.0;
        // The used index must be visible before the driver's event index is read.
        fence(Ordering::SeqCst);
        let avail = GuestAddress(queue.avail_ring());
        let wanted = if queue.event_idx_enabled() {
            // used_event follows the entries of the available ring.
            let event = field(avail, 4 + 2 * u64::from(queue.size()))?;
            let event = Wrapping(u16::from_le(self.mem.load(event, Ordering::Relaxed)?));
            new - event - Wrapping(1) < new - old
        } else {
            let flags = u16::from_le(self.mem.load(avail, Ordering::Relaxed)?);
            u32::from(flags) & VRING_AVAIL_F_NO_INTERRUPT == 0
        };
        if wanted {
            self.interrupt
                .trigger(Cause::Queue(self.index))
                .map_err(QueueError::Signal)?;
        }
        Ok(())
    }
}

fn ready(index: u16, queue: &mut Option<Queue>) -> Result<&mut Queue, QueueError> {
    queue.as_mut().ok_or(QueueError::NotReady(index))
}

fn field(base: GuestAddress, offset: u64) -> Result<GuestAddress, virtio_queue::Error> {
    use vm_memory::Address;
    base.checked_add(offset)
        .ok_or(virtio_queue::Error::AddressOverflow)
}

/// Returns the next available chain. virtio-queue's `pop_descriptor_chain` would hide an invalid index.
fn pop<'m>(queue: &mut Queue, mem: &'m GuestMemory) -> Result<Option<Chain<'m>>, QueueError> {
    let available = queue.avail_idx(mem, Ordering::Acquire)?.0;
    if available == queue.next_avail() {
        return Ok(None);
    }
    // The index says there is an entry; one that cannot be read now will never be readable.
    let chain = queue.iter(mem)?.next();
    let chain = chain.ok_or(virtio_queue::Error::InvalidAvailRingIndex)?;
    if chain.head_index() >= queue.size() {
        return Err(virtio_queue::Error::InvalidDescriptorIndex.into());
    }
    Ok(Some(chain))
}

fn rewind(queue: &mut Queue, chains: usize) {
    for _ in 0..chains {
        queue.go_to_previous_position();
    }
}

/// Publishes several chains at once. A driver that sees the first buffer of a merged message expects the others to be
/// there.
fn publish(queue: &mut Queue, mem: &GuestMemory, used: &[(u16, u32)]) -> Result<(), QueueError> {
    let ring = GuestAddress(queue.used_ring());
    let mut next = Wrapping(queue.next_used());
    for (head, len) in used {
        let slot = u64::from(next.0 % queue.size());
        // `struct virtq_used_elem`: id, then len, little-endian.
        let entry = (u64::from(*len) << 32 | u64::from(*head)).to_le();
        mem.write_obj(entry, field(ring, 4 + 8 * slot)?)?;
        next += 1;
    }
    queue.set_next_used(next.0);
    mem.store(next.0.to_le(), field(ring, 2)?, Ordering::Release)?;
    Ok(())
}

/// Returns true if the three parts of `queue` are in guest memory. virtio-queue's own check logs an error for each
/// mistake of a guest.
pub(super) fn rings_in_memory(queue: &Queue, mem: &GuestMemory) -> bool {
    let size = usize::from(queue.size());
    // Section 2.7: the descriptor table, and the rings with their event index.
    let parts = [
        (queue.desc_table(), 16 * size, Permissions::Read),
        (queue.avail_ring(), 6 + 2 * size, Permissions::Read),
        (queue.used_ring(), 6 + 8 * size, Permissions::Write),
    ];
    parts
        .into_iter()
        .all(|(address, len, access)| mem.check_range(GuestAddress(address), len, access))
}

#[cfg(test)]
#[path = "queue_test.rs"]
mod queue_test;
