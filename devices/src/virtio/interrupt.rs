//! How a virtio device signals the guest.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use virtio_bindings::virtio_mmio::{VIRTIO_MMIO_INT_CONFIG, VIRTIO_MMIO_INT_VRING};
use vmm_sys_util::eventfd::EventFd;

/// Why a virtio device interrupts the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The queue of this index has used buffers.
    Queue(u16),
    /// The configuration changed, or the device needs a reset.
    Config,
}

/// Raises the interrupts of one device. Called from the loop that serves it.
pub trait Interrupt: Send + Sync {
    /// Signals the guest.
    ///
    /// # Errors
    /// The event descriptor could not be written.
    fn trigger(&self, cause: Cause) -> io::Result<()>;
}

/// One line with a status register, as virtio-mmio has it (Virtio 1.2, 4.2.2).
#[derive(Debug)]
pub struct LineInterrupt {
    status: AtomicU32,
    irqfd: EventFd,
}

impl LineInterrupt {
    /// Signals by writing to `irqfd`.
    pub fn new(irqfd: EventFd) -> Self {
        Self {
            status: AtomicU32::new(0),
            irqfd,
        }
    }

    /// Pending causes, as the guest reads them in InterruptStatus.
    pub fn status(&self) -> u32 {
        self.status.load(Ordering::SeqCst)
    }

    /// Clears the causes that the guest wrote to InterruptACK.
    pub fn acknowledge(&self, bits: u32) {
        self.status.fetch_and(!bits, Ordering::SeqCst);
    }

    /// Makes exactly `bits` pending, without a signal: a restored device.
    pub fn set_pending(&self, bits: u32) {
        self.status.store(bits, Ordering::SeqCst);
    }

    /// Signals if anything is pending.
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
