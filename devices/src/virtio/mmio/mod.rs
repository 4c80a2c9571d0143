//! virtio-mmio, version 2 (section 4.2.2): the registers, and the device-independent state behind them (features, queue
//! set-up, status, interrupts). `saved` saves and restores that state.
//!
//! The monitor creates one transport per device. Each register write is checked against the order of section 3.1.1; a
//! write out of order is ignored as a whole. The transport knows no particular device and reads no ring.

mod saved;

use super::device::{Offer, VirtioDevice};
use super::queue::{DeviceQueue, rings_in_memory};
use super::report::Report;
use super::state::{SavedQueue, Selectors};
use super::update::{DeviceUpdate, UpdateError};
use super::worker::{Loop, NeedsReset, Running, WorkerCount, WorkerHandle};
use crate::GuestMemory;
use crate::bus::BusDevice;
use crate::util::metrics::MetricSet;
use crate::virtio::interrupt::{Cause, Interrupt as _, LineInterrupt};
use std::io;
use std::sync::Arc;
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK,
    VIRTIO_CONFIG_S_FAILED, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET,
    VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio as reg;
use virtio_bindings::virtio_ring::{VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC};
use virtio_queue::{Queue, QueueState};
use vmm_sys_util::eventfd::EventFd;

/// Bytes of the register window.
pub const WINDOW: u64 = 0x1000;
/// Offset of the doorbell register, which all queues share. The written value is the queue index.
pub const QUEUE_NOTIFY: u64 = reg::VIRTIO_MMIO_QUEUE_NOTIFY as u64;

const CONFIG: u64 = reg::VIRTIO_MMIO_CONFIG as u64;
/// "virt", little-endian.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// "BNTM", little-endian. Drivers ignore it.
const VENDOR: u32 = 0x4d54_4e42;
/// Features of the transport: no legacy interface, indirect descriptors, event indices.
const TRANSPORT_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;
/// Status bits that the driver sets, in their order. The device sets DEVICE_NEEDS_RESET.
const DRIVER_STATUS: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE
    | VIRTIO_CONFIG_S_DRIVER
    | VIRTIO_CONFIG_S_FEATURES_OK
    | VIRTIO_CONFIG_S_DRIVER_OK
    | VIRTIO_CONFIG_S_FAILED;

/// A queue as the driver describes it.
#[derive(Clone, Copy, Debug, Default)]
struct QueueSetup {
    max_size: u16,
    set: SavedQueue,
}

impl QueueSetup {
    fn new(max_size: u16) -> Self {
        let mut setup = Self {
            max_size,
            set: SavedQueue::default(),
        };
        setup.set.size = max_size;
        setup
    }

    /// Returns `None` if the description is invalid.
    fn build(&self, event_idx: bool, mem: &GuestMemory) -> Option<Queue> {
        let set = &self.set;
        let queue = Queue::try_from(QueueState {
            max_size: self.max_size,
            next_avail: set.next_avail,
            next_used: set.next_used,
            event_idx_enabled: event_idx,
            size: set.size,
            ready: set.ready,
            desc_table: set.desc_table,
            avail_ring: set.avail_ring,
            used_ring: set.used_ring,
        });
        queue.ok().filter(|queue| rings_in_memory(queue, mem))
    }
}

/// The host resources of a transport.
pub struct Wiring {
    /// Guest memory.
    pub mem: GuestMemory,
    /// Interrupt of the device.
    pub interrupt: Arc<LineInterrupt>,
    /// Event loop that serves the device.
    pub event_loop: Loop,
    /// Non-blocking doorbells, one per queue.
    pub kicks: Vec<EventFd>,
}

/// A virtio device behind a register window.
pub struct MmioTransport {
    device: Box<dyn VirtioDevice>,
    offer: Offer,
    wiring: Wiring,
    needs_reset: Arc<NeedsReset>,
    queues: Vec<QueueSetup>,
    running: Option<WorkerHandle>,
    workers: WorkerCount,
    features: u64,
    status: u32,
    select: Selectors,
    config_generation: u32,
    /// The configuration space that the current generation number stands for.
    config_seen: Vec<u8>,
    /// True if saved pending interrupts have not been raised yet.
    raise_saved: bool,
}

fn low(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default()
}

fn half(value: u64, select: u32) -> u32 {
    match select {
        0 => low(value),
        1 => low(value >> 32),
        _ => 0,
    }
}

fn set_half(value: &mut u64, high: bool, half: u32) {
    let shift = if high { 32 } else { 0 };
    *value = *value & !(u64::from(u32::MAX) << shift) | u64::from(half) << shift;
}

impl MmioTransport {
    /// Creates the transport of `device`.
    pub fn new(device: Box<dyn VirtioDevice>, wiring: Wiring) -> Self {
        let offer = device.offer();
        let queues = offer.queue_sizes.iter().map(|&n| QueueSetup::new(n));
        Self {
            queues: queues.collect(),
            needs_reset: Arc::new(NeedsReset::new(wiring.interrupt.clone())),
            config_seen: device.config().into_owned(),
            device,
            offer,
            wiring,
            running: None,
            workers: WorkerCount::default(),
            features: 0,
            status: 0,
            select: Selectors::default(),
            config_generation: 0,
            raise_saved: false,
        }
    }

    fn offered(&self) -> u64 {
        self.offer.features | TRANSPORT_FEATURES
    }

    fn has(&self, status: u32) -> bool {
        self.status & status == status
    }

    /// Stops the device. Afterwards the transport owns the queues.
    pub fn pause(&mut self) {
        let Some(running) = self.running.take().and_then(WorkerHandle::stop) else {
            return;
        };
        for (setup, queue) in self.queues.iter_mut().zip(&running.queues) {
            if let Some((next_avail, next_used)) = queue.positions() {
                (setup.set.next_avail, setup.set.next_used) = (next_avail, next_used);
            }
        }
    }

    /// Starts serving the queues: when the driver is ready, after [`Self::pause`], after [`Self::restore`]. If the host
    /// refuses, the transport requests a reset from the driver.
    pub fn resume(&mut self) {
        self.raise_saved();
        if !self.has(VIRTIO_CONFIG_S_DRIVER_OK) || self.running.is_some() {
            return;
        }
        match self.start() {
            Ok(handle) => self.running = Some(handle),
            Err(e) => {
                log::warn!("virtio device {} cannot start: {e}", self.offer.id);
                self.device.start_failed();
                self.needs_reset.raise();
            }
        }
    }

    /// Changes the stopped device and signals a changed configuration to the driver. Waits for the batch being served, but
    /// never for the loop, so that the loop's own thread may call it.
    ///
    /// # Errors
    /// [`UpdateError`]; the device is unchanged.
    pub fn update(&mut self, change: DeviceUpdate) -> Result<(), UpdateError> {
        if change.needs_driver() && !self.has(VIRTIO_CONFIG_S_DRIVER_OK) {
            return Err(UpdateError::NotActivated);
        }
        // The driver knows what it wrote itself.
        self.notice_config();
        // A device of a paused machine stays stopped.
        let running = self.running.is_some();
        self.pause();
        let done = self.device.update(change);
        if self.notice_config()
            && self.has(VIRTIO_CONFIG_S_DRIVER_OK)
            && let Err(e) = self.wiring.interrupt.trigger(Cause::Config)
        {
            log::error!("cannot interrupt the guest: {e}");
        }
        if running {
            self.resume();
        }
        done
    }

    /// Increments the generation if the configuration changed since the last call. Returns true if it did.
    fn notice_config(&mut self) -> bool {
        let config = self.device.config();
        let changed = *config != self.config_seen;
        if changed {
            self.config_seen = config.into_owned();
            self.config_generation = self.config_generation.wrapping_add(1);
        }
        changed
    }

    /// Returns the device's report.
    pub fn report(&self) -> Report {
        self.device.report()
    }

    /// Returns the device's metrics.
    pub fn metrics(&self) -> Option<Arc<dyn MetricSet>> {
        self.device.metrics()
    }

    fn start(&mut self) -> io::Result<WorkerHandle> {
        let event_idx = self.features & 1 << VIRTIO_RING_F_EVENT_IDX != 0;
        let mut queues = Vec::with_capacity(self.queues.len());
        let mut kicks = Vec::with_capacity(self.queues.len());
        for (index, (setup, kick)) in (0_u16..).zip(self.queues.iter().zip(&self.wiring.kicks)) {
            let queue = match setup.set.ready {
                false => None,
                true => Some(setup.build(event_idx, &self.wiring.mem).ok_or_else(|| {
                    io::Error::other(format!("queue {index} is outside guest memory"))
                })?),
            };
            // A disabled queue has no doorbell.
            kicks.push(queue.is_some().then(|| kick.try_clone()).transpose()?);
            let (mem, interrupt) = (self.wiring.mem.clone(), self.wiring.interrupt.clone());
            queues.push(DeviceQueue::new(
                index,
                queue,
                mem,
                interrupt,
                kick.try_clone()?,
            ));
        }
        let handler = self.device.start(self.features)?;
        let running = Running { handler, queues };
        WorkerHandle::start(
            &self.wiring.event_loop,
            running,
            kicks,
            self.needs_reset.clone(),
            &self.workers,
        )
    }

    /// Returns the device status register.
    fn status(&self) -> u32 {
        match self.needs_reset.is_set() {
            true => self.status | VIRTIO_CONFIG_S_NEEDS_RESET,
            false => self.status,
        }
    }

    fn reset(&mut self) {
        self.pause();
        self.device.reset();
        for queue in &mut self.queues {
            *queue = QueueSetup::new(queue.max_size);
        }
        self.needs_reset.clear();
        self.wiring.interrupt.acknowledge(u32::MAX);
        (self.status, self.features) = (0, 0);
    }

    fn set_status(&mut self, value: u32) {
        if value == 0 {
            return self.reset();
        }
        let value = value & DRIVER_STATUS;
        if self.status & !value != 0 {
            log::debug!("ignored a status that clears bits: {value:#x}");
            return;
        }
        let new = value & !self.status;
        for bit in [
            VIRTIO_CONFIG_S_ACKNOWLEDGE,
            VIRTIO_CONFIG_S_DRIVER,
            VIRTIO_CONFIG_S_FEATURES_OK,
            VIRTIO_CONFIG_S_DRIVER_OK,
            VIRTIO_CONFIG_S_FAILED,
        ] {
            if new & bit != 0 && self.may_set(bit) {
                self.status |= bit;
            }
        }
        if new & self.status & VIRTIO_CONFIG_S_DRIVER_OK != 0 {
            self.resume();
        }
    }

    /// Returns true if the driver may set `bit`: section 3.1.1 requires the step before it and the device's consent.
    fn may_set(&self, bit: u32) -> bool {
        match bit {
            VIRTIO_CONFIG_S_DRIVER => self.has(VIRTIO_CONFIG_S_ACKNOWLEDGE),
            VIRTIO_CONFIG_S_FEATURES_OK => {
                self.has(VIRTIO_CONFIG_S_DRIVER)
                    && self.features & !self.offered() == 0
                    && self.features & 1 << VIRTIO_F_VERSION_1 != 0
            }
            VIRTIO_CONFIG_S_DRIVER_OK => self.has(VIRTIO_CONFIG_S_FEATURES_OK),
            _ => true,
        }
    }

    fn write_register(&mut self, offset: u64, value: u32) {
        let Ok(register) = u32::try_from(offset) else {
            return;
        };
        match register {
            reg::VIRTIO_MMIO_DEVICE_FEATURES_SEL => self.select.device_features = value,
            reg::VIRTIO_MMIO_DRIVER_FEATURES_SEL => self.select.driver_features = value,
            reg::VIRTIO_MMIO_QUEUE_SEL => self.select.queue = value,
            reg::VIRTIO_MMIO_INTERRUPT_ACK => self.wiring.interrupt.acknowledge(value),
            reg::VIRTIO_MMIO_STATUS => self.set_status(value),
            reg::VIRTIO_MMIO_QUEUE_NOTIFY => self.kick(value),
            reg::VIRTIO_MMIO_DRIVER_FEATURES => self.set_features(value),
            _ => self.write_queue_register(register, value),
        }
    }

    fn set_features(&mut self, value: u32) {
        if self.has(VIRTIO_CONFIG_S_DRIVER) && !self.has(VIRTIO_CONFIG_S_FEATURES_OK) {
            match self.select.driver_features {
                0 => set_half(&mut self.features, false, value),
                1 => set_half(&mut self.features, true, value),
                _ => {}
            }
        }
    }

    /// Rings a doorbell that KVM did not handle: in tests, and without an ioeventfd.
    fn kick(&self, queue: u32) {
        let kick = self.wiring.kicks.get(queue as usize);
        if let Some(Err(e)) = kick.map(|kick| kick.write(1)) {
            log::debug!("the doorbell of queue {queue} is full: {e}");
        }
    }

    fn write_queue_register(&mut self, register: u32, value: u32) {
        let stopped = self.running.is_none() && !self.has(VIRTIO_CONFIG_S_DRIVER_OK);
        let negotiated = self.has(VIRTIO_CONFIG_S_FEATURES_OK);
        let Some(queue) = self.queues.get_mut(self.select.queue as usize) else {
            return;
        };
        let (max_size, set) = (queue.max_size, &mut queue.set);
        if !stopped || !negotiated || (set.ready && register != reg::VIRTIO_MMIO_QUEUE_READY) {
            log::debug!("ignored write of {value:#x} to queue register {register:#x}");
            return;
        }
        match register {
            reg::VIRTIO_MMIO_QUEUE_NUM => {
                set.size = valid_size(value, max_size).unwrap_or(set.size)
            }
            reg::VIRTIO_MMIO_QUEUE_READY => set.ready = value == 1,
            reg::VIRTIO_MMIO_QUEUE_DESC_LOW => set_half(&mut set.desc_table, false, value),
            reg::VIRTIO_MMIO_QUEUE_DESC_HIGH => set_half(&mut set.desc_table, true, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_LOW => set_half(&mut set.avail_ring, false, value),
            reg::VIRTIO_MMIO_QUEUE_AVAIL_HIGH => set_half(&mut set.avail_ring, true, value),
            reg::VIRTIO_MMIO_QUEUE_USED_LOW => set_half(&mut set.used_ring, false, value),
            reg::VIRTIO_MMIO_QUEUE_USED_HIGH => set_half(&mut set.used_ring, true, value),
            _ => log::debug!("ignored write of {value:#x} to register {register:#x}"),
        }
    }

    fn read_register(&self, offset: u64) -> u32 {
        let queue = self.queues.get(self.select.queue as usize);
        match u32::try_from(offset).unwrap_or(u32::MAX) {
            reg::VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            reg::VIRTIO_MMIO_VERSION => VERSION,
            reg::VIRTIO_MMIO_DEVICE_ID => self.offer.id,
            reg::VIRTIO_MMIO_VENDOR_ID => VENDOR,
            reg::VIRTIO_MMIO_DEVICE_FEATURES => half(self.offered(), self.select.device_features),
            reg::VIRTIO_MMIO_QUEUE_NUM_MAX => queue.map_or(0, |q| q.max_size.into()),
            reg::VIRTIO_MMIO_QUEUE_READY => queue.map_or(0, |q| q.set.ready.into()),
            reg::VIRTIO_MMIO_INTERRUPT_STATUS => self.wiring.interrupt.status(),
            reg::VIRTIO_MMIO_STATUS => self.status(),
            reg::VIRTIO_MMIO_CONFIG_GENERATION => self.config_generation,
            // There is no shared memory region: length and base are -1 (section 4.2.2).
            reg::VIRTIO_MMIO_SHM_LEN_LOW
            | reg::VIRTIO_MMIO_SHM_LEN_HIGH
            | reg::VIRTIO_MMIO_SHM_BASE_LOW
            | reg::VIRTIO_MMIO_SHM_BASE_HIGH => u32::MAX,
            _ => 0,
        }
    }
}

fn valid_size(size: u32, max: u16) -> Option<u16> {
    let size = u16::try_from(size).ok()?;
    (size.is_power_of_two() && size <= max).then_some(size)
}

impl BusDevice for MmioTransport {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if let Some(at) = offset.checked_sub(CONFIG) {
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let config = self.device.config();
            let config = config.get(at..).unwrap_or_default();
            data.iter_mut()
                .zip(config)
                .for_each(|(to, from)| *to = *from);
        } else if let Ok(register) = <&mut [u8; 4]>::try_from(data) {
            if offset == u64::from(reg::VIRTIO_MMIO_CONFIG_GENERATION) {
                self.notice_config();
            }
            *register = self.read_register(offset).to_le_bytes();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        if let Some(at) = offset.checked_sub(CONFIG) {
            self.device.write_config(at, data);
        } else if let Ok(register) = <[u8; 4]>::try_from(data) {
            self.write_register(offset, u32::from_le_bytes(register));
        }
    }
}
