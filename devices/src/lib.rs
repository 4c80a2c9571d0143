//! Everything the guest talks to: ports, the register window of virtio-mmio, and the virtio devices
//! behind it.
//!
//! This crate knows nothing of KVM. Interrupts and doorbells are event descriptors that its user
//! injects; guest memory is a [`GuestMemory`]. A virtio device is one file that implements
//! [`virtio::device::VirtioDevice`] and [`virtio::device::QueueHandler`]; registers, rings and the
//! event loop are written once, in [`virtio`].
//!
//! All that comes from the guest is hostile: it never panics the process, and nothing here
//! works longer on it than the queue is long.

pub mod balloon;
pub mod block;
pub mod bus;
pub mod net;
pub mod platform;
pub mod rng;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod util;
pub mod virtio;
pub mod vsock;

/// Guest memory as every device sees it. Mapped with a bitmap, it notes which pages devices write: vm-memory
/// does so for what goes through it, and whoever has the kernel write does so with [`buffers::mark`].
pub type GuestMemory = vm_memory::GuestMemoryMmap<Option<vm_memory::bitmap::AtomicBitmap>>;

/// Locks `mutex`, also after another thread panicked while it held it: device state is
/// valid between any two statements, and the release build aborts on a panic anyway.
pub fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
