//! Serial output without an exit for each byte: KVM collects writes to the transmit register in a ring (KVM API, 4.116,
//! KVM_CAP_COALESCED_PIO), and the monitor reads the ring at the next exit.
//!
//! Writes are collected only for a guest that has enabled the port's FIFO. Its driver reads the line status before each
//! burst, which is an exit, so earlier output appears in order. A payload that writes without reading the status is served
//! byte by byte. A timer writes output that no exit follows.

use super::buses::Buses;
use boot::layout::{COM1_PORT, COM1_PORTS};
use kvm_bindings::{KVM_COALESCED_MMIO_PAGE_OFFSET, kvm_coalesced_mmio};
use kvm_ioctls::{Cap, IoEventAddress, VcpuFd, VmFd};
use nix::sys::time::{TimeSpec, TimeValLike as _};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

/// Size of the ring and its header in bytes: one page on x86.
const RING_BYTES: usize = 4096;
/// Size of the header in bytes: the indices of the first and of the next free entry.
const HEADER_BYTES: usize = 8;
/// Number of entries in the rest of the page.
const ENTRIES: u32 = 170;
const _: () = assert!((RING_BYTES - HEADER_BYTES) / size_of::<kvm_coalesced_mmio>() == 170);
/// Offset of the FIFO control register, and its enable bit.
const FIFO_CONTROL: u16 = 2;
const FIFO_ENABLE: u8 = 1;
/// Time that output may wait without an exit: less than a person notices.
pub(super) const FLUSH_MS: i64 = 20;
/// The ring that KVM shares with this process. The mapping holds a reference to the VM.
struct Ring {
    page: NonNull<u8>,
}

#[expect(unsafe_code, reason = "unmapping")]
impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: only this struct uses the page, and references into it last no longer than a call. munmap fails only for a
        // range that is not mapped.
        unsafe { libc::munmap(self.page.as_ptr().cast(), RING_BYTES) };
    }
}

#[expect(unsafe_code, reason = "a pointer to a shared mapping")]
// SAFETY: the mapping belongs to no thread, and accesses are atomic or made under the mutex around the ring.
unsafe impl Send for Ring {}
#[expect(unsafe_code, reason = "a pointer to a shared mapping")]
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    #[expect(unsafe_code, reason = "mapping a page of KVM's")]
    fn map(vcpu: &VcpuFd) -> io::Result<Self> {
        let offset = i64::from(KVM_COALESCED_MMIO_PAGE_OFFSET) * RING_BYTES as i64;
        // SAFETY: a new mapping at an address of the kernel's choice replaces nothing.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                RING_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                vcpu.as_raw_fd(),
                offset,
            )
        };
        match NonNull::new(page.cast()) {
            Some(page) if page.as_ptr() != libc::MAP_FAILED.cast() => Ok(Self { page }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Returns the index of the first entry (0) or of the next free entry (1).
    #[expect(unsafe_code, reason = "a reference into the shared mapping")]
    fn index(&self, which: usize) -> &AtomicU32 {
        let index = self.page.cast::<AtomicU32>();
        // SAFETY: the page is aligned and mapped as long as `self`, both indices are within it, and KVM and this process
        // access them as words.
        unsafe { index.add(which.min(1)).as_ref() }
    }

    #[expect(unsafe_code, reason = "reading from the shared mapping")]
    fn entry(&self, at: u32) -> kvm_coalesced_mmio {
        let entries = self.page.as_ptr().wrapping_add(HEADER_BYTES);
        let at = (at % ENTRIES) as usize;
        let entry = entries.cast::<kvm_coalesced_mmio>().wrapping_add(at);
        // SAFETY: the entry is within the page, and plain data that KVM wrote before it moved the index.
        unsafe { entry.read_unaligned() }
    }

    fn is_empty(&self) -> bool {
        self.index(0).load(Ordering::Relaxed) == self.index(1).load(Ordering::Acquire)
    }

    fn take(&self) -> Option<kvm_coalesced_mmio> {
        if self.is_empty() {
            return None;
        }
        let first = self.index(0).load(Ordering::Relaxed);
        let entry = self.entry(first);
        self.index(0)
            .store((first + 1) % ENTRIES, Ordering::Release);
        Some(entry)
    }
}

/// The collected writes of a VM.
pub struct Coalesced {
    ring: Ring,
    /// Held while the ring is read, so that bytes stay in order.
    taking: Mutex<()>,
    on: AtomicBool,
    pub(super) timer: TimerFd,
    pub(super) armed: AtomicBool,
    /// Number of timer expirations since the last access or output.
    pub(super) quiet: AtomicUsize,
}

impl Coalesced {
    /// Maps the ring. Returns `None` if this host's KVM does not collect port writes.
    ///
    /// # Errors
    /// The ring cannot be mapped, or the timer cannot be created.
    pub fn new(vm: &VmFd, vcpu: &VcpuFd) -> io::Result<Option<Self>> {
        if !vm.check_extension(Cap::CoalescedPio) {
            return Ok(None);
        }
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Some(Self {
            ring: Ring::map(vcpu)?,
            taking: Mutex::new(()),
            on: AtomicBool::new(false),
            timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?,
            armed: AtomicBool::new(false),
            quiet: AtomicUsize::new(0),
        }))
    }

    /// Performs the collected writes. Returns whether there were any. Call it before any other access is served.
    pub fn drain(&self, buses: &Buses) -> bool {
        if !self.is_on() {
            return false;
        }
        // The lock is needed even if the ring is empty: another thread may hold the last entry without having written it,
        // and the caller's access comes after that entry.
        let _one_at_a_time = devices::lock(&self.taking);
        let mut any = false;
        while let Some(entry) = self.ring.take() {
            let len = usize::try_from(entry.len).unwrap_or(usize::MAX);
            let data = entry.data.get(..len).unwrap_or_default();
            buses.port.write(entry.phys_addr, data);
            any = true;
        }
        any
    }

    /// Returns whether writes are collected.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Acquire)
    }

    /// Starts collecting, when the guest enables the FIFO or a restored guest had it enabled.
    pub fn start(&self, vm: &VmFd) {
        if !self.on.swap(true, Ordering::AcqRel) {
            let transmit = IoEventAddress::Pio(COM1_PORT.into());
            if let Err(e) = vm.register_coalesced_mmio(transmit, 1) {
                log::debug!("serial output is not collected: {e}");
                self.on.store(false, Ordering::Release);
            }
        }
    }

    /// Observes an access to `port`. Starts collecting when the guest enables the FIFO, and arms the timer for output that
    /// follows the access.
    pub fn observe(&self, vm: &VmFd, port: u16, written: Option<u8>) {
        let Some(register @ 0..8) = port.checked_sub(COM1_PORT) else {
            return;
        };
        debug_assert!(register < COM1_PORTS.into());
        if register == FIFO_CONTROL && written.is_some_and(|v| v & FIFO_ENABLE != 0) {
            self.start(vm);
        }
        if self.on.load(Ordering::Relaxed) {
            // A timer set for a later look is set anew.
            let late = self.quiet.swap(0, Ordering::AcqRel) > 0;
            if !self.armed.swap(true, Ordering::AcqRel) || late {
                self.arm(FLUSH_MS);
            }
        }
    }

    pub(super) fn arm(&self, ms: i64) {
        let then = Expiration::OneShot(TimeSpec::milliseconds(ms));
        if let Err(e) = self.timer.set(then, TimerSetTimeFlags::empty()) {
            log::error!("cannot set the console's timer: {e}");
        }
    }
}
