//! Disk (Virtio 1.2, 5.2): parses requests and executes them with a [`engine::DiskEngine`].
//!
//! The monitor creates one per drive of the configuration. The device interprets no content of the disk, and opens a file
//! only through [`backing`].

pub mod backing;
pub mod engine;
mod metrics;
mod request;

use crate::GuestMemory;
use crate::util::metrics::MetricSet;
use crate::util::source::Source;
use crate::util::timer::now;
use crate::virtio::buffers::ChainBuffers;
use crate::virtio::device::{Loops, Offer, QueueHandler, VirtioDevice};
use crate::virtio::queue::{Chain, DeviceQueue, QueueError, Served};
use crate::virtio::section::{BuildError, FromSection, Place};
use crate::virtio::state::{DeviceState, StateError};
use crate::virtio::throttle::{Limits, Throttle};
use crate::virtio::update::{DeviceUpdate, Direction, UpdateError};
use backing::Backing;
use engine::{DiskEngine, SyncEngine};
pub use metrics::BlockMetrics;
use request::{Operation, Request, RequestBounds};
use resources::{CacheType, Drive, IoEngine};
use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO,
    VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;

pub use backing::SECTOR;

/// Entries of the queue.
const QUEUE_SIZE: u16 = 256;
/// Data buffers of a request: the queue less header and status.
const SEG_MAX: u32 = QUEUE_SIZE as u32 - 2;
/// Bytes of the serial number (section 5.2.6).
const ID_BYTES: usize = 20;

/// Version of the saved state, which is the levels of the rate limiter's buckets.
const STATE_VERSION: u32 = 1;

/// Bytes of data after which a turn ends, so that stopping the device is quick.
const TURN_BYTES: usize = 4 << 20;

/// Options of a disk.
#[derive(Clone, Debug, Default)]
pub struct BlockOptions {
    /// Serial number that the guest reads, cut to 20 bytes.
    pub serial: String,
    /// True if the guest must not write.
    pub read_only: bool,
    /// True if the disk offers a flush, which reaches the disk of the host.
    pub flush: bool,
    /// True if the disk offers discard and write-zeroes.
    pub discard: bool,
    /// Limits on requests and their data, for reads and writes together.
    pub rate_limiter: resources::RateLimiter,
}

/// A disk.
pub struct Block {
    backing: Backing,
    options: BlockOptions,
    config: Vec<u8>,
    limits: Limits,
    metrics: Arc<BlockMetrics>,
}

impl Block {
    /// Creates a disk with the contents of `backing`.
    pub fn new(backing: Backing, options: BlockOptions) -> Self {
        let config = config_space(backing.sectors(), options.discard && !options.read_only);
        Self {
            limits: Limits::new(&options.rate_limiter),
            metrics: Arc::default(),
            backing,
            options,
            config,
        }
    }

    fn discards(&self) -> bool {
        self.options.discard && !self.options.read_only
    }

    fn handler(&self, features: u64, engine: Box<dyn DiskEngine>) -> io::Result<BlockHandler> {
        let mut serial = [0; ID_BYTES];
        let id = self.options.serial.bytes();
        serial.iter_mut().zip(id).for_each(|(to, from)| *to = from);
        Ok(BlockHandler {
            engine,
            throttle: self.limits.throttle()?,
            metrics: self.metrics.clone(),
            bounds: RequestBounds::new(self.discards()),
            sectors: self.backing.sectors(),
            read_only: self.options.read_only,
            // A driver that does not flush expects every write to be durable (section 5.2.6.2).
            write_through: self.options.flush && features & 1 << VIRTIO_BLK_F_FLUSH == 0,
            serial,
        })
    }
}

/// `struct virtio_blk_config` (section 5.2.4).
fn config_space(sectors: u64, discard: bool) -> Vec<u8> {
    let bounds = RequestBounds::new(discard);
    let mut config = Vec::with_capacity(60);
    config.extend(sectors.to_le_bytes());
    config.extend(0_u32.to_le_bytes()); // size_max: not offered
    config.extend(SEG_MAX.to_le_bytes());
    config.extend([0; 4]); // geometry: not offered
    config.extend(512_u32.to_le_bytes()); // blk_size
    config.extend([0; 8]); // topology: not offered
    config.extend([0; 2]); // writeback: not offered
    config.extend([0; 2]); // num_queues: not offered
    config.extend(bounds.discard_sectors.to_le_bytes());
    config.extend(bounds.segments.to_le_bytes());
    config.extend(8_u32.to_le_bytes()); // discard_sector_alignment: a page of the host's file
    config.extend(bounds.write_zeroes_sectors.to_le_bytes());
    config.extend(bounds.segments.to_le_bytes());
    config.extend([1, 0, 0, 0]); // write_zeroes_may_unmap
    config
}

/// Why a drive of a pool is refused: only the jailer opens pools.
pub const POOL_NEEDS_JAILER: &str = "only the jailer finds volumes in pools: start this guest with it, or name the \
     volume's path on this host (`bantamctl volume list` shows it) without `pool`";

impl FromSection for Block {
    type Section = Drive;
    type Lent = ();
    type Metrics = BlockMetrics;

    fn place(drive: &Self::Section) -> Place {
        match drive.is_root_device {
            true => Place::RootDisk,
            false => Place::Disk,
        }
    }

    fn name(drive: &Self::Section) -> String {
        format!("drive {}", drive.drive_id)
    }

    fn id(drive: &Self::Section) -> Option<&str> {
        Some(&drive.drive_id)
    }

    fn build(drive: &Self::Section, key: &str, (): ()) -> Result<Self, BuildError> {
        if drive.pool.is_some() {
            let refused = BuildError::configuration(format!("{key}.pool"));
            return Err(refused(io::Error::other(POOL_NEEDS_JAILER)));
        }
        if drive.io_engine == IoEngine::Async {
            log::warn!("{key}.io_engine: this version serves Async as Sync");
        }
        let path = drive.path_on_host.clone().unwrap_or_default();
        let backing = Backing::open(&path, drive.is_read_only)
            .map_err(BuildError::configuration(format!("{key}.path_on_host")))?;
        let options = BlockOptions {
            serial: drive.drive_id.clone(),
            read_only: drive.is_read_only,
            flush: drive.cache_type == CacheType::Writeback,
            discard: drive.discard,
            rate_limiter: drive.rate_limiter.unwrap_or_default(),
        };
        Ok(Self::new(backing, options))
    }
}

impl VirtioDevice for Block {
    fn offer(&self) -> Offer {
        let mut features = 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE;
        for (offered, feature) in [
            (self.options.read_only, VIRTIO_BLK_F_RO),
            (self.options.flush, VIRTIO_BLK_F_FLUSH),
            (self.discards(), VIRTIO_BLK_F_DISCARD),
            (self.discards(), VIRTIO_BLK_F_WRITE_ZEROES),
        ] {
            features |= u64::from(offered) << feature;
        }
        Offer {
            id: VIRTIO_ID_BLOCK,
            features,
            queue_sizes: vec![QUEUE_SIZE],
            loops: Loops::Own,
        }
    }

    fn config(&self) -> Cow<'_, [u8]> {
        (&self.config).into()
    }

    fn start(&mut self, features: u64) -> io::Result<Box<dyn QueueHandler>> {
        let engine = SyncEngine::new(self.backing.try_clone()?);
        Ok(Box::new(self.handler(features, Box::new(engine))?))
    }

    fn start_failed(&mut self) {
        self.metrics.activate_fails.increment();
    }

    fn update(&mut self, change: DeviceUpdate) -> Result<(), UpdateError> {
        let done = match change {
            DeviceUpdate::Disk { path } => self
                .backing
                .replace(&path, self.options.read_only)
                .map(|backing| {
                    self.config = config_space(backing.sectors(), self.discards());
                    self.backing = backing;
                })
                .map_err(|e| UpdateError::File(Box::new(e))),
            DeviceUpdate::Limits {
                direction: Direction::Both,
                change,
            } => {
                self.limits.update(&change);
                Ok(())
            }
            _ => Err(UpdateError::Unsupported),
        };
        match done {
            Ok(()) => self.metrics.update_count.increment(),
            Err(_) => self.metrics.update_fails.increment(),
        }
        done
    }

    fn metrics(&self) -> Option<Arc<dyn MetricSet>> {
        Some(self.metrics.clone())
    }

    fn save(&self) -> DeviceState {
        DeviceState::encode(STATE_VERSION, &self.limits.levels())
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        self.limits.set_levels(&state.decode(STATE_VERSION)?)
    }
}

struct BlockHandler {
    engine: Box<dyn DiskEngine>,
    throttle: Throttle,
    metrics: Arc<BlockMetrics>,
    bounds: RequestBounds,
    sectors: u64,
    read_only: bool,
    write_through: bool,
    serial: [u8; ID_BYTES],
}

impl QueueHandler for BlockHandler {
    fn sources(&self) -> io::Result<Vec<Source>> {
        Ok(self.throttle.source()?.into_iter().collect())
    }

    fn on_queue(&mut self, _index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        self.metrics.queue_event_count.increment();
        self.serve(queues)
    }

    fn on_source(&mut self, _token: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        self.throttle.acknowledge();
        self.metrics.rate_limiter_event_count.increment();
        self.serve(queues)
    }
}

impl BlockHandler {
    fn serve(&mut self, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        let Some(queue) = queues.first_mut().filter(|queue| queue.is_ready()) else {
            return Ok(());
        };
        let mut moved = 0;
        let served = queue.serve(|mem, chain| {
            if moved >= TURN_BYTES {
                return Served::NotYet;
            }
            self.answer(mem, chain, &mut moved)
        });
        served.inspect_err(|_| self.metrics.event_fails.increment())?;
        match moved >= TURN_BYTES {
            true => queue.ring(),
            false => Ok(()),
        }
    }

    /// Serves one chain and adds its bytes of data to `moved`. A chain without room for a status is returned unanswered.
    fn answer(&mut self, mem: &GuestMemory, chain: Chain<'_>, moved: &mut usize) -> Served {
        let request = ChainBuffers::collect(chain).map_err(|e| e.to_string());
        let request = request.and_then(|buffers| Request::parse(mem, buffers).map_err(Into::into));
        let request = match request {
            Ok(request) => request,
            Err(e) => {
                log::debug!("disk: cannot answer a request: {e}");
                self.metrics.invalid_reqs_count.increment();
                return Served::Done(0);
            }
        };
        let bytes = request.data_in().len() + request.data_out().len();
        if !self.throttle.admits(bytes) {
            self.metrics.rate_limiter_throttled_events.increment();
            return Served::NotYet;
        }
        *moved += bytes;
        let operation = request.check(mem, self.sectors, self.read_only, &self.bounds);
        if operation.is_err() {
            self.metrics.invalid_reqs_count.increment();
        }
        let done = operation.and_then(|operation| self.execute(mem, &request, operation));
        Served::Done(request.finish(mem, done))
    }

    /// Executes `operation`. Returns the bytes of data written to the guest, or the error status.
    fn execute(
        &mut self,
        mem: &GuestMemory,
        request: &Request,
        operation: Operation,
    ) -> Result<usize, u8> {
        let through = self.write_through;
        let (engine, metrics) = (&mut self.engine, &self.metrics);
        let started = now();
        let done = match operation {
            Operation::Read { offset } => {
                let len = request.data_in().len();
                let done = engine.read(mem, request.data_in(), offset);
                done.map(|()| {
                    metrics.read_count.increment();
                    metrics.read_bytes.add_bytes(len);
                    metrics.read_agg.record(now().saturating_sub(started));
                    len
                })
            }
            Operation::Write { offset } => {
                let done = engine.write(mem, request.data_out(), offset);
                let done = done.and_then(|()| if through { engine.flush() } else { Ok(()) });
                done.map(|()| {
                    metrics.write_count.increment();
                    metrics.write_bytes.add_bytes(request.data_out().len());
                    metrics.write_agg.record(now().saturating_sub(started));
                    0
                })
            }
            Operation::Flush => {
                metrics.flush_count.increment();
                engine.flush().map(|()| 0)
            }
            Operation::Discard { ranges } => ranges
                .into_iter()
                .try_for_each(|range| engine.discard(range))
                .map(|()| 0),
            Operation::WriteZeroes { ranges } => ranges
                .into_iter()
                .try_for_each(|(range, unmap)| engine.write_zeroes(range, unmap))
                .and_then(|()| if through { engine.flush() } else { Ok(()) })
                .map(|()| 0),
            Operation::GetId => request
                .write_data(mem, &self.serial)
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e)),
        };
        done.map_err(|e| {
            self.metrics.execute_fails.increment();
            request::status_of(&e, &self.name())
        })
    }

    fn name(&self) -> String {
        String::from_utf8_lossy(&self.serial)
            .trim_end_matches('\0')
            .to_owned()
    }
}

#[cfg(test)]
#[path = "block_test.rs"]
mod block_test;
