//! A guest for tests: a driver that accesses the bus, so that registers, negotiation, rings and worker run together, and an
//! event loop that serves them.
#![expect(clippy::expect_used, reason = "a test's failed step is a failed test")]

use crate::GuestMemory;
use crate::bus::Bus;
use crate::lock;
use crate::platform::guest_event::{EventSink, GuestEvent};
use crate::virtio::device::VirtioDevice;
use crate::virtio::interrupt::LineInterrupt;
use crate::virtio::mmio::{MmioTransport, WINDOW, Wiring};
use crate::virtio::worker::{Loop, Subscriber};
use event_manager::{EventManager, SubscriberOps};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};
use vm_memory::bitmap::NewBitmap;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend as _, GuestRegionMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Address of the register window of the device under test.
pub const WINDOW_BASE: u64 = 0xd000_0000;
/// Bytes of guest memory.
pub const MEM: usize = 1 << 20;
/// First byte of the memory that [`Ring`]s do not use.
pub const DATA: u64 = 0x4_0000;
/// Time limit of an answer. Only a hang takes this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// Events reported by devices.
#[derive(Clone, Default)]
pub struct RecordedEvents(Arc<Mutex<Vec<GuestEvent>>>);

impl RecordedEvents {
    /// Returns the events since the last call.
    pub fn take(&self) -> Vec<GuestEvent> {
        std::mem::take(&mut *lock(&self.0))
    }
}

/// Returns a sink for a device under test, and its recorder.
pub fn recorded_events() -> (EventSink, RecordedEvents) {
    let events = RecordedEvents::default();
    let sink = events.clone();
    (Arc::new(move |event| lock(&sink.0).push(event)), events)
}

/// An event loop on its own thread.
#[derive(Clone)]
pub struct TestLoop {
    /// The loop.
    pub endpoint: Loop,
    turns: Arc<AtomicU64>,
}

impl TestLoop {
    /// Starts the loop.
    pub fn spawn() -> Self {
        let (tx, rx) = mpsc::channel();
        let turns = Arc::new(AtomicU64::new(0));
        let counted = turns.clone();
        std::thread::spawn(move || {
            let mut manager = EventManager::<Subscriber>::new().expect("an epoll");
            tx.send(manager.remote_endpoint())
                .expect("a test that waits");
            loop {
                manager.run().expect("an event loop");
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
        let endpoint = rx.recv().expect("an event loop");
        Self { endpoint, turns }
    }

    /// Returns the loop that tests share which need none of their own.
    pub fn shared() -> Self {
        static LOOP: Mutex<Option<TestLoop>> = Mutex::new(None);
        lock(&LOOP).get_or_insert_with(Self::spawn).clone()
    }

    /// Returns true if the loop runs; a panicking handler ends it.
    pub fn is_alive(&self) -> bool {
        let nothing = |_: &mut dyn SubscriberOps<Subscriber = Subscriber>| {};
        self.endpoint.fire(nothing).is_ok()
    }

    /// Returns the number of turns, which stays constant while the loop is idle.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Returns true if the loop becomes idle; a spinning loop does not.
    pub fn rests(&self) -> bool {
        (0..100).any(|_| {
            let before = self.turns();
            std::thread::sleep(Duration::from_millis(20));
            self.turns() == before
        })
    }

    /// Runs `call` on the loop's thread.
    pub fn post(&self, call: impl FnOnce() + Send + 'static) {
        self.endpoint
            .fire(move |_: &mut dyn SubscriberOps<Subscriber = Subscriber>| call())
            .expect("an event loop");
    }

    /// Waits until the loop has served everything that was ready before. The current turn may have begun earlier, the next
    /// one adds posted subscribers, the third serves them.
    pub fn settle(&self) {
        for _ in 0..4 {
            let before = self.turns();
            self.post(|| {});
            wait("event loop that turns", || self.turns() != before);
        }
    }
}

/// Waits until `done` returns true.
fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    for tries in 0_u32.. {
        if done() {
            return;
        }
        assert!(start.elapsed() < PATIENCE, "no {what}");
        // An answer usually takes less time than a sleep.
        if tries < 20 {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_micros(50));
        }
    }
}

/// Returns the runner of property tests: a fixed seed, BANTAM_CASES cases per property and device, and no regression
/// files.
#[cfg(test)]
pub fn properties() -> proptest::test_runner::TestRunner {
    let cases = std::env::var("BANTAM_CASES").map_or(150, |n| n.parse().expect("BANTAM_CASES"));
    proptest::test_runner::TestRunner::new(proptest::test_runner::Config {
        cases,
        rng_seed: proptest::test_runner::RngSeed::Fixed(0x62_616e_7461_6d21),
        failure_persistence: None,
        max_shrink_iters: 1000,
        ..Default::default()
    })
}

/// Returns zeroed guest memory.
pub fn memory() -> GuestMemory {
    memory_of(&[(0, MEM)], false)
}

/// Returns zeroed guest memory of these addresses and lengths, with a dirty bitmap if `tracked`.
pub fn memory_of(ranges: &[(u64, usize)], tracked: bool) -> GuestMemory {
    let region = |&(start, len): &(u64, usize)| {
        let mapping =
            MmapRegionBuilder::new_with_bitmap(len, tracked.then(|| NewBitmap::with_len(len)))
                .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS)
                .build()
                .expect("memory");
        GuestRegionMmap::new(mapping, GuestAddress(start)).expect("a region")
    };
    GuestMemory::from_regions(ranges.iter().map(region).collect()).expect("memory")
}

/// Returns the pages that were marked dirty since the last call, by number. The memory has one region.
pub fn take_dirty(mem: &GuestMemory) -> Vec<u64> {
    let region = mem.iter().next().expect("a region");
    let Some(bitmap) = (**region).bitmap() else {
        return Vec::new();
    };
    let words = bitmap.get_and_reset();
    let pages = (0_u64..).zip(words).flat_map(|(word, bits)| {
        let set = (0..64).filter(move |bit| bits >> bit & 1 != 0);
        set.map(move |bit| 64 * word + bit)
    });
    pages.collect()
}

/// A virtqueue as a driver sees it. The three parts of queue `n` start at `0x1000 + n * 0x4000`.
#[derive(Clone, Debug)]
pub struct Ring {
    /// Index of the queue.
    pub index: u32,
    /// Entries.
    pub size: u16,
    /// Address of the descriptor table.
    pub desc: u64,
    /// Address of the available ring.
    pub avail: u64,
    /// Address of the used ring.
    pub used: u64,
    next_desc: u16,
    next_avail: u16,
    next_used: u16,
}

impl Ring {
    /// Creates ring `index` with `size` entries.
    pub fn new(index: u32, size: u16) -> Self {
        let base = 0x1000 + u64::from(index) * 0x4000;
        Self {
            index,
            size,
            desc: base,
            avail: base + 0x2000,
            used: base + 0x3000,
            next_desc: 0,
            next_avail: 0,
            next_used: 0,
        }
    }

    /// Moves to `position` in the available and the used ring.
    pub fn seek(&mut self, mem: &GuestMemory, position: u16) {
        (self.next_avail, self.next_used) = (position, position);
        self.set_avail_index(mem, position);
        mem.store(position, GuestAddress(self.used + 2), Ordering::Release)
            .expect("a used ring");
    }

    /// Makes a chain of `(address, length, device may write)` available. Returns its head.
    pub fn add(&mut self, mem: &GuestMemory, buffers: &[(u64, u32, bool)]) -> u16 {
        let head = self.next_desc;
        for (i, (address, len, writable)) in buffers.iter().enumerate() {
            let last = i + 1 == buffers.len();
            let next = (self.next_desc + 1) % self.size;
            let flags = u16::from(!last) | u16::from(*writable) << 1;
            self.set_descriptor(mem, self.next_desc, (*address, *len, flags, next));
            self.next_desc = next;
        }
        self.publish(mem, head);
        head
    }

    /// Writes descriptor `index` as `(address, length, flags, next)`.
    pub fn set_descriptor(&self, mem: &GuestMemory, index: u16, d: (u64, u32, u16, u16)) {
        let at = GuestAddress(self.desc + 16 * u64::from(index));
        let mut bytes = d.0.to_le_bytes().to_vec();
        bytes.extend(d.1.to_le_bytes());
        bytes.extend(d.2.to_le_bytes());
        bytes.extend(d.3.to_le_bytes());
        mem.write_slice(&bytes, at).expect("a descriptor table");
    }

    /// Makes the chain at `head` available.
    pub fn publish(&mut self, mem: &GuestMemory, head: u16) {
        let slot = u64::from(self.next_avail % self.size);
        let entry = GuestAddress(self.avail + 4 + 2 * slot);
        mem.write_obj(head, entry).expect("an available ring");
        self.next_avail = self.next_avail.wrapping_add(1);
        self.set_avail_index(mem, self.next_avail);
    }

    /// Writes the index of the available ring.
    pub fn set_avail_index(&self, mem: &GuestMemory, index: u16) {
        mem.store(index, GuestAddress(self.avail + 2), Ordering::Release)
            .expect("an available ring");
    }

    /// Returns the next used entry, `(head, bytes written)`.
    pub fn take_used(&mut self, mem: &GuestMemory) -> Option<(u32, u32)> {
        let index = GuestAddress(self.used + 2);
        let index: u16 = mem.load(index, Ordering::Acquire).expect("a used ring");
        if index == self.next_used {
            return None;
        }
        let slot = u64::from(self.next_used % self.size);
        self.next_used = self.next_used.wrapping_add(1);
        let at = self.used + 4 + 8 * slot;
        let read = |at| mem.read_obj::<u32>(GuestAddress(at)).expect("a used ring");
        Some((read(at), read(at + 4)))
    }
}

/// A guest with one virtio device, which it accesses over the bus only.
pub struct FakeGuest {
    /// The bus.
    pub bus: Bus,
    /// Transport of the device, to pause, save and restore it.
    pub transport: Arc<Mutex<MmioTransport>>,
    /// Guest memory.
    pub mem: GuestMemory,
    irq: EventFd,
    event_loop: TestLoop,
}

impl FakeGuest {
    /// Creates a guest with `device` and its own memory.
    pub fn new(device: Box<dyn VirtioDevice>) -> Self {
        Self::with(device, memory(), TestLoop::shared())
    }

    /// Creates a guest with `device`, existing memory and a loop.
    pub fn with(device: Box<dyn VirtioDevice>, mem: GuestMemory, event_loop: TestLoop) -> Self {
        let eventfd = || EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        let irq = eventfd();
        let line = LineInterrupt::new(irq.try_clone().expect("an eventfd"));
        let offer = device.offer();
        let kicks = offer.queue_sizes.iter().map(|_| eventfd());
        let wiring = Wiring {
            mem: mem.clone(),
            interrupt: Arc::new(line),
            event_loop: event_loop.endpoint.clone(),
            kicks: kicks.collect(),
        };
        let transport = Arc::new(Mutex::new(MmioTransport::new(device, wiring)));
        let mut bus = Bus::default();
        bus.insert(WINDOW_BASE, WINDOW, transport.clone())
            .expect("a free bus");
        Self {
            bus,
            transport,
            mem,
            irq,
            event_loop,
        }
    }

    /// Writes the 32-bit register at `offset`.
    pub fn write(&self, offset: u32, value: u32) {
        assert!(
            self.bus
                .write(WINDOW_BASE + u64::from(offset), &value.to_le_bytes())
        );
    }

    /// Reads the 32-bit register at `offset`.
    pub fn read(&self, offset: u32) -> u32 {
        let mut bytes = [0; 4];
        assert!(self.bus.read(WINDOW_BASE + u64::from(offset), &mut bytes));
        u32::from_le_bytes(bytes)
    }

    /// Returns the features that the device offers.
    pub fn offered(&self) -> u64 {
        self.write(0x14, 1);
        let high = self.read(0x10);
        self.write(0x14, 0);
        u64::from(high) << 32 | u64::from(self.read(0x10))
    }

    /// Performs steps 1 to 6 of section 3.1.1 with `features`. Returns the status register.
    pub fn negotiate(&self, features: u64) -> u32 {
        self.write(0x70, 0);
        self.write(0x70, 1);
        self.write(0x70, 3);
        for (select, shift) in [(0, 0), (1, 32)] {
            self.write(0x24, select);
            self.write(0x20, low(features >> shift));
        }
        self.write(0x70, 11);
        self.read(0x70)
    }

    /// Describes `ring` to the device and enables it.
    pub fn enable(&self, ring: &Ring) {
        self.write(0x30, ring.index);
        self.write(0x38, ring.size.into());
        for (register, address) in [(0x80, ring.desc), (0x90, ring.avail), (0xa0, ring.used)] {
            self.write(register, low(address));
            self.write(register + 4, low(address >> 32));
        }
        self.write(0x44, 1);
    }

    /// Sets DRIVER_OK. Returns the status register.
    pub fn driver_ok(&self) -> u32 {
        self.write(0x70, 15);
        self.read(0x70)
    }

    /// Resets the device, negotiates `features`, and enables all queues with at most `size` entries.
    pub fn start(&self, features: u64, size: u16) -> Vec<Ring> {
        assert_eq!(
            self.negotiate(features),
            11,
            "features {features:#x} refused"
        );
        let mut rings = Vec::new();
        for index in 0.. {
            self.write(0x30, index);
            let max = u16::try_from(self.read(0x34)).expect("a queue size");
            if max == 0 {
                break;
            }
            let ring = Ring::new(index, size.min(max));
            self.mem
                .write_slice(&[0; 0x4000], GuestAddress(ring.desc))
                .expect("memory");
            self.enable(&ring);
            rings.push(ring);
        }
        assert_eq!(self.driver_ok(), 15);
        rings
    }

    /// Rings the doorbell of queue `index`.
    pub fn kick(&self, index: u32) {
        self.write(0x50, index);
    }

    /// Waits for the next used entry of `ring`.
    pub fn wait_used(&self, ring: &mut Ring) -> (u32, u32) {
        let mut used = None;
        wait("used entry", || {
            used = ring.take_used(&self.mem);
            used.is_some()
        });
        used.expect("waited for")
    }

    /// Makes a chain available, kicks, and waits for it. Returns the bytes written.
    pub fn request(&self, ring: &mut Ring, buffers: &[(u64, u32, bool)]) -> u32 {
        let head = ring.add(&self.mem, buffers);
        self.kick(ring.index);
        let (id, len) = self.wait_used(ring);
        assert_eq!(id, u32::from(head));
        len
    }

    /// Returns true if the device interrupted since the last call.
    pub fn interrupted(&self) -> bool {
        self.irq.read().is_ok()
    }

    /// Waits until the loop has served every earlier kick and the start of the device, except work that a device left for
    /// its next turn.
    pub fn settle(&self) {
        self.event_loop.settle();
    }
}

impl Drop for FakeGuest {
    fn drop(&mut self) {
        // The loop outlives the guest and would keep its device.
        lock(&self.transport).pause();
    }
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("32 bits")
}
