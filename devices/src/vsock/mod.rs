//! Socket device (Virtio 1.2, 5.10): streams between guest ports and Unix sockets of the host.
//!
//! The monitor creates one if the configuration has a vsock. The device does not interpret the data of a stream.
//!
//! A host client connects to the device's socket, writes `CONNECT <port>` and a newline, and reads `OK <its own port>` when
//! the guest accepts. A guest that connects to a port of the host reaches the listener at `<socket>_<port>`. Connections
//! outlive a pause and end with a device reset. They are not saved: a restored guest is notified that they are closed.

mod client;
mod connection;
mod handler;
mod metrics;
mod packet;
mod router;

use crate::lock;
use crate::util::metrics::MetricSet;
use crate::util::unix_socket;
use crate::virtio::device::{Loops, Offer, QueueHandler, VirtioDevice};
use crate::virtio::section::{BuildError, FromSection};
use crate::virtio::state::{DeviceState, StateError};
use handler::VsockHandler;
pub use metrics::VsockMetrics;
use router::Router;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use virtio_bindings::virtio_ids::VIRTIO_ID_VSOCK;

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
/// Number of queues: receive, transmit, events.
const QUEUES: usize = 3;
const RX: usize = 0;
const TX: usize = 1;
const EVENTS: usize = 2;

const STATE_VERSION: u32 = 1;

/// Saved state of the device besides its queues.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    /// Host port of the next client. No closed connection of the guest may have it.
    next_port: u32,
}

/// The reason why the socket device cannot be created. Each text names the path.
#[derive(Debug, thiserror::Error)]
pub enum VsockError {
    /// The path is taken.
    #[error("{} is in the way of the vsock: remove it or choose another uds_path", path.display())]
    InTheWay {
        /// The socket's path.
        path: PathBuf,
    },
    /// The socket cannot be created.
    #[error("cannot create the vsock socket {}", path.display())]
    Bind {
        /// The socket's path.
        path: PathBuf,
        /// The error of the host.
        #[source]
        source: io::Error,
    },
}

/// The socket device.
pub struct Vsock {
    config: [u8; 8],
    /// State that outlives a pause. Both halves own it; the running one uses it.
    router: Arc<Mutex<Router>>,
    metrics: Arc<VsockMetrics>,
}

impl Vsock {
    /// Binds the socket at `path`, where clients can wait from now on. The socket file stays when the device is dropped.
    ///
    /// # Errors
    /// [`VsockError`], naming the path.
    pub fn listen(path: &Path) -> Result<UnixListener, VsockError> {
        unix_socket::listen(path).map_err(|source| match source.kind() {
            io::ErrorKind::AddrInUse => VsockError::InTheWay { path: path.into() },
            _ => VsockError::Bind {
                path: path.into(),
                source,
            },
        })
    }

    /// Creates a device that binds its own socket.
    ///
    /// # Errors
    /// [`VsockError`], naming the path.
    pub fn new(config: &resources::Vsock) -> Result<Self, VsockError> {
        Self::at(config, Self::listen(&config.uds_path)?)
    }

    /// Creates a device for the clients of `listener`, which [`Self::listen`] bound.
    ///
    /// # Errors
    /// [`VsockError::Bind`]: the process has no free descriptor.
    pub fn at(config: &resources::Vsock, listener: UnixListener) -> Result<Self, VsockError> {
        let path = &config.uds_path;
        let failed = |source: io::Error| VsockError::Bind {
            path: path.clone(),
            source,
        };
        let guest_cid = u64::from(config.guest_cid);
        let metrics: Arc<VsockMetrics> = Arc::default();
        let router = Router::new(guest_cid, path.clone(), listener, metrics.clone());
        Ok(Self {
            config: guest_cid.to_le_bytes(),
            router: Arc::new(Mutex::new(router.map_err(failed)?)),
            metrics,
        })
    }
}

impl FromSection for Vsock {
    type Section = resources::Vsock;
    /// The listening socket at `uds_path`, which clients may connect to before the guest starts.
    type Lent = UnixListener;
    type Metrics = VsockMetrics;

    fn name(_section: &Self::Section) -> String {
        "vsock".into()
    }

    fn build(
        section: &Self::Section,
        key: &str,
        listener: UnixListener,
    ) -> Result<Self, BuildError> {
        Self::at(section, listener).map_err(BuildError::configuration(format!("{key}.uds_path")))
    }
}

impl VirtioDevice for Vsock {
    fn offer(&self) -> Offer {
        Offer {
            id: VIRTIO_ID_VSOCK,
            // Stream sockets need no feature (section 5.10.3).
            features: 0,
            queue_sizes: vec![QUEUE_SIZE; QUEUES],
            loops: Loops::Shared,
        }
    }

    fn config(&self) -> Cow<'_, [u8]> {
        (&self.config).into()
    }

    fn start(&mut self, _features: u64) -> io::Result<Box<dyn QueueHandler>> {
        lock(&self.router).start();
        let handler = VsockHandler::new(self.router.clone(), self.metrics.clone());
        Ok(Box::new(handler))
    }

    fn start_failed(&mut self) {
        self.metrics.activate_fails.increment();
    }

    fn reset(&mut self) {
        lock(&self.router).reset();
    }

    fn metrics(&self) -> Option<Arc<dyn MetricSet>> {
        Some(self.metrics.clone())
    }

    fn save(&self) -> DeviceState {
        let next_port = lock(&self.router).next_port();
        DeviceState::encode(STATE_VERSION, &Saved { next_port })
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let saved: Saved = state.decode(STATE_VERSION)?;
        match lock(&self.router).restore(saved.next_port) {
            true => Ok(()),
            false => Err(StateError::Value("port")),
        }
    }
}

#[cfg(test)]
#[path = "hostile_test.rs"]
mod hostile_test;
#[cfg(test)]
#[path = "saved_test.rs"]
mod saved_test;
#[cfg(test)]
#[path = "streams_test.rs"]
mod streams_test;
#[cfg(test)]
#[path = "vsock_test.rs"]
mod vsock_test;
