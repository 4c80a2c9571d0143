//! Entropy device (Virtio 1.2, 5.4): fills the driver's buffers from the host's random source.

use crate::buffers::ChainBuffers;
use crate::virtio::device::{Offer, QueueHandler, VirtioDevice};
use crate::virtio::queue::{DeviceQueue, QueueError, Served};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use virtio_bindings::virtio_ids::VIRTIO_ID_RNG;

/// Entries of the queue: drivers have one or two requests under way.
const QUEUE_SIZE: u16 = 64;

/// Longest answer to one request in bytes, so that a guest cannot make the host work without
/// bound. A driver asks again for more (section 5.4.6.1 allows a shorter answer).
const MAX_REQUEST: usize = 4 << 10;

/// Entropy device.
pub struct Rng {
    source: File,
}

impl Rng {
    /// Reads entropy from `source`, commonly `/dev/urandom`.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn new(source: &Path) -> io::Result<Self> {
        Ok(Self {
            source: File::open(source)?,
        })
    }
}

impl VirtioDevice for Rng {
    fn offer(&self) -> Offer {
        Offer {
            id: VIRTIO_ID_RNG,
            features: 0,
            queue_sizes: vec![QUEUE_SIZE],
        }
    }

    fn start(&mut self, _features: u64) -> io::Result<Box<dyn QueueHandler>> {
        Ok(Box::new(RngHandler {
            source: self.source.try_clone()?,
        }))
    }
}

struct RngHandler {
    source: File,
}

impl QueueHandler for RngHandler {
    fn on_queue(&mut self, _index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        let Some(queue) = queues.first_mut() else {
            return Ok(());
        };
        queue.serve(|mem, chain| {
            let Ok(ChainBuffers { writable, .. }) = ChainBuffers::collect(chain) else {
                return Served::Done(0);
            };
            let mut bytes = vec![0; writable.len().min(MAX_REQUEST)];
            if let Err(e) = self.source.read_exact(&mut bytes) {
                log::warn!("cannot read the source of entropy: {e}");
                return Served::Done(0);
            }
            match writable.write(mem, &bytes) {
                Ok(()) => Served::Done(u32::try_from(bytes.len()).unwrap_or_default()),
                Err(e) => {
                    log::debug!("entropy: {e}");
                    Served::Done(0)
                }
            }
        })
    }
}
