//! Interrupts of a virtio device.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

/// The cause of an interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The queue of this index has used buffers.
    Queue(u16),
    /// The configuration changed, or the device needs a reset.
    Config,
}

/// Raises the interrupts of one device. The loop that serves the device calls it.
pub trait Interrupt: Send + Sync {
    /// Interrupts the guest.
    ///
    /// # Errors
    /// The event descriptor could not be written.
    fn trigger(&self, cause: Cause) -> io::Result<()>;
}

/// An interrupt line with a status register, as in virtio-mmio (Virtio 1.2, 4.2.2).
#[derive(Debug)]
pub struct LineInterrupt {
    status: AtomicU32,
    irqfd: EventFd,
}

impl LineInterrupt {
    /// Creates a line that signals by writing to `irqfd`.
    pub fn new(irqfd: EventFd) -> Self {
        Self {
            status: AtomicU32::new(0),
            irqfd,
        }
    }

    /// Returns the pending causes, as InterruptStatus shows them.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// Clears the causes that the driver wrote to InterruptACK.
    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Sets the pending causes of a restored device without a signal.
    pub fn set_pending(&self, bits: u32) {
        self.status.store(bits, Ordering::SeqCst);
    }

    /// Signals if a cause is pending.
    ///
    /// # Errors
    /// The event descriptor could not be written.
    pub fn raise_pending(&self) -> io::Result<()> {
        match self.status() {
            0 => Ok(()),
            _ => self.irqfd.write(1),
        }
    }
}

impl Interrupt for LineInterrupt {
    fn trigger(&self, cause: Cause) -> io::Result<()> {
        let bit = match cause {
            Cause::Queue(_) => VIRTIO_MMIO_INT_VRING,
            Cause::Config => VIRTIO_MMIO_INT_CONFIG,
        };
        self.status.fetch_or(bit, Ordering::SeqCst);
        self.irqfd.write(1)
    }
}
