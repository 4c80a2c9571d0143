//! The devices that a guest sees: platform devices at fixed ports, and virtio devices behind virtio-mmio.
//!
//! The monitor creates them and puts them on a [`bus::Bus`]. This crate knows nothing of KVM: interrupts and doorbells
//! are event descriptors, and guest memory is a [`GuestMemory`]. A virtio device is one file that implements
//! [`virtio::device::VirtioDevice`] and [`virtio::device::QueueHandler`]; [`virtio`] has the registers, the rings and
//! the event loop for all of them.
//!
//! Everything that comes from the guest is untrusted. It never panics the process, and the work for one kick is bounded
//! by the length of the queue.

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

/// Guest memory. If it was mapped with a bitmap, the bitmap records the pages that devices write: vm-memory marks its
/// own writes, and [`virtio::buffers::mark`] marks those of the kernel.
pub type GuestMemory = vm_memory::GuestMemoryMmap<Option<vm_memory::bitmap::AtomicBitmap>>;

/// Locks `mutex` even if another thread panicked while holding it. Device state is valid between any two statements,
/// and the release build aborts on a panic.
pub fn lock<T: ?Sized>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
