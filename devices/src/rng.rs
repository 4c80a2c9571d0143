//! Entropy device (Virtio 1.2, 5.4): fills the driver's buffers with random bytes of the host.

use crate::metric_set;
use crate::util::metrics::{Counter, MetricSet};
use crate::util::source::Source;
use crate::virtio::buffers::ChainBuffers;
use crate::virtio::device::{Loops, Offer, QueueHandler, VirtioDevice};
use crate::virtio::queue::{DeviceQueue, QueueError, Served};
use crate::virtio::section::{BuildError, FromSection};
use crate::virtio::state::{DeviceState, StateError};
use crate::virtio::throttle::{Limits, Throttle};
use crate::virtio::update::{DeviceUpdate, Direction, UpdateError};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

/// The host's random source.
const RANDOM: &str = "/dev/urandom";

/// Entries of the queue. Drivers have one or two requests in flight.
const QUEUE_SIZE: u16 = 64;

/// Largest answer to one request in bytes, to bound the host's work per request. The driver asks again if it needs
/// more; section 5.4.6.1 allows a shorter answer.
const MAX_REQUEST: usize = 4 << 10;

/// Version of the saved state, which is the levels of the rate limiter's buckets.
const STATE_VERSION: u32 = 1;

metric_set! {
    /// Metrics of the entropy device.
    pub struct RngMetrics = "entropy" {
        /// Failed activations.
        activate_fails: Counter,
        /// Requests that failed, and broken rings.
        entropy_event_fails: Counter,
        /// Kicks of the queue.
        entropy_event_count: Counter,
        /// Random bytes given to the guest.
        entropy_bytes: Counter,
        /// Failed reads from the host's random source.
        host_rng_fails: Counter,
        /// Requests delayed by the rate limiter.
        entropy_rate_limiter_throttled: Counter,
        /// Wake-ups by the rate limiter's timer.
        rate_limiter_event_count: Counter,
    }
}

/// Entropy device.
pub struct Rng {
    source: File,
    limits: Limits,
    metrics: Arc<RngMetrics>,
}

impl Rng {
    /// Creates a device that reads `source`, usually `/dev/urandom`, within `limits`.
    ///
    /// # Errors
    /// `source` cannot be opened.
    pub fn new(source: &Path, limits: &resources::RateLimiter) -> io::Result<Self> {
        Ok(Self {
            source: File::open(source)?,
            limits: Limits::new(limits),
            metrics: Arc::default(),
        })
    }
}

impl FromSection for Rng {
    type Section = resources::Entropy;
    type Lent = ();
    type Metrics = RngMetrics;

    fn name(_section: &Self::Section) -> String {
        "entropy".into()
    }

    fn build(section: &Self::Section, key: &str, (): ()) -> Result<Self, BuildError> {
        let limits = section.rate_limiter.unwrap_or_default();
        let key = format!("{key}: cannot open {RANDOM}");
        Self::new(Path::new(RANDOM), &limits).map_err(BuildError::configuration(key))
    }
}

impl VirtioDevice for Rng {
    fn offer(&self) -> Offer {
        Offer {
            id: VIRTIO_ID_RNG,
            features: 0,
            queue_sizes: vec![QUEUE_SIZE],
            loops: Loops::Shared,
        }
    }

    fn start(&mut self, _features: u64) -> io::Result<Box<dyn QueueHandler>> {
        Ok(Box::new(RngHandler {
            source: self.source.try_clone()?,
            throttle: self.limits.throttle()?,
            metrics: self.metrics.clone(),
        }))
    }

    fn start_failed(&mut self) {
        self.metrics.activate_fails.increment();
    }

    fn update(&mut self, change: DeviceUpdate) -> Result<(), UpdateError> {
        match change {
            DeviceUpdate::Limits {
                direction: Direction::Both,
                change,
            } => self.limits.update(&change),
            _ => return Err(UpdateError::Unsupported),
        }
        Ok(())
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

struct RngHandler {
    source: File,
    throttle: Throttle,
    metrics: Arc<RngMetrics>,
}

impl QueueHandler for RngHandler {
    fn sources(&self) -> io::Result<Vec<Source>> {
        Ok(self.throttle.source()?.into_iter().collect())
    }

    fn on_queue(&mut self, _index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        self.metrics.entropy_event_count.increment();
        self.serve(queues)
    }

    fn on_source(&mut self, _token: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        self.throttle.acknowledge();
        self.metrics.rate_limiter_event_count.increment();
        self.serve(queues)
    }
}

impl RngHandler {
    fn serve(&mut self, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        let Some(queue) = queues.first_mut().filter(|queue| queue.is_ready()) else {
            return Ok(());
        };
        let served = queue.serve(|mem, chain| {
            let Ok(ChainBuffers { writable, .. }) = ChainBuffers::collect(chain) else {
                self.metrics.entropy_event_fails.increment();
                return Served::Done(0);
            };
            let len = writable.len().min(MAX_REQUEST);
            if !self.throttle.admits(len) {
                self.metrics.entropy_rate_limiter_throttled.increment();
                return Served::NotYet;
            }
            let mut bytes = vec![0; len];
            if let Err(e) = self.source.read_exact(&mut bytes) {
                log::warn!("entropy: cannot read the host's random source: {e}");
                self.metrics.host_rng_fails.increment();
                return Served::Done(0);
            }
            match writable.write(mem, &bytes) {
                Ok(()) => {
                    self.metrics.entropy_bytes.add_bytes(len);
                    Served::Done(u32::try_from(len).unwrap_or_default())
                }
                Err(e) => {
                    log::debug!("entropy: {e}");
                    self.metrics.entropy_event_fails.increment();
                    Served::Done(0)
                }
            }
        });
        served.inspect_err(|_| self.metrics.entropy_event_fails.increment())
    }
}
