//! Network card (Virtio 1.2, 5.1) on a tap, with checksum and segmentation offload and mergeable receive buffers.
//!
//! The monitor creates one per network interface of the configuration. The tap has the same packet header as the ring,
//! so packets are passed unchanged. The device does not parse them: the kernel checks the header that the guest wrote, and a
//! [`responder`] may answer frames instead of the tap.

mod handler;
mod metrics;
pub mod responder;
pub mod tap;

use crate::lock;
use crate::util::metrics::MetricSet;
use crate::util::rate_limiter::Levels;
use crate::virtio::device::{Loops, Offer, QueueHandler, VirtioDevice};
use crate::virtio::queue::Layout;
use crate::virtio::section::{BuildError, FromSection, Place};
use crate::virtio::state::{DeviceState, StateError};
use crate::virtio::throttle::Limits;
use crate::virtio::update::{DeviceUpdate, Direction, UpdateError};
use handler::{NetHandler, Shared};
pub use metrics::NetMetrics;
use resources::NetworkInterface;
use responder::Responder;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io;
use std::sync::{Arc, Mutex};
use tap::{HEADER, Offload, Tap};
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::{
    VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM, VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_TSO6,
    VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF,
    VIRTIO_NET_F_MTU,
};

/// Entries of each queue.
const QUEUE_SIZE: u16 = 256;
const RX: usize = 0;
const TX: usize = 1;
/// Largest packet in bytes: the largest IP packet, an Ethernet header with a VLAN tag, and the virtio header.
const MAX_PACKET: usize = 65535 + 18 + HEADER;
/// Offset of num_buffers in the header (section 5.1.6).
const NUM_BUFFERS: usize = 10;
const STATE_VERSION: u32 = 1;

/// Saved state of a card besides its queues. A packet on its way to the driver is not saved: networks lose packets.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    rx_limits: Levels,
    tx_limits: Levels,
}

/// Options of a network card.
#[derive(Default)]
pub struct NetOptions {
    /// MAC address; the driver chooses one if absent.
    pub mac: Option<[u8; 6]>,
    /// MTU in bytes; the driver assumes 1500 if absent.
    pub mtu: Option<u16>,
    /// Limits on received packets.
    pub rx_rate_limiter: resources::RateLimiter,
    /// Limits on sent packets.
    pub tx_rate_limiter: resources::RateLimiter,
    /// Answers some of the guest's frames instead of the network.
    pub responder: Option<Box<dyn Responder>>,
}

/// A network card.
pub struct Net {
    tap: Tap,
    features: u64,
    config: Vec<u8>,
    rx_limits: Limits,
    tx_limits: Limits,
    shared: Arc<Mutex<Shared>>,
    metrics: Arc<NetMetrics>,
}

impl Net {
    /// Creates a card on `tap`.
    pub fn new(tap: Tap, options: NetOptions) -> Self {
        let NetOptions { mac, mtu, .. } = options;
        let mut features = 0;
        for feature in [
            VIRTIO_NET_F_CSUM,
            VIRTIO_NET_F_GUEST_CSUM,
            VIRTIO_NET_F_GUEST_TSO4,
            VIRTIO_NET_F_GUEST_TSO6,
            VIRTIO_NET_F_HOST_TSO4,
            VIRTIO_NET_F_HOST_TSO6,
            VIRTIO_NET_F_MRG_RXBUF,
        ] {
            features |= 1 << feature;
        }
        features |= u64::from(mac.is_some()) << VIRTIO_NET_F_MAC;
        features |= u64::from(mtu.is_some()) << VIRTIO_NET_F_MTU;
        // `struct virtio_net_config` (section 5.1.4).
        let mut config = mac.unwrap_or_default().to_vec();
        config.extend(1_u16.to_le_bytes()); // status: the link is up
        config.extend(1_u16.to_le_bytes()); // max_virtqueue_pairs
        config.extend(mtu.unwrap_or_default().to_le_bytes());
        Self {
            tap,
            features,
            config,
            rx_limits: Limits::new(&options.rx_rate_limiter),
            tx_limits: Limits::new(&options.tx_rate_limiter),
            shared: Arc::new(Mutex::new(Shared::new(options.responder))),
            metrics: Arc::default(),
        }
    }
}

impl FromSection for Net {
    type Section = NetworkInterface;
    /// The responder of the metadata service, if the interface reaches it.
    type Lent = Option<Box<dyn Responder>>;
    type Metrics = NetMetrics;

    fn place(_section: &Self::Section) -> Place {
        Place::Network
    }

    fn name(interface: &Self::Section) -> String {
        format!("interface {}", interface.iface_id)
    }

    fn id(interface: &Self::Section) -> Option<&str> {
        Some(&interface.iface_id)
    }

    fn build(
        interface: &Self::Section,
        key: &str,
        responder: Option<Box<dyn Responder>>,
    ) -> Result<Self, BuildError> {
        let name = &interface.host_dev_name;
        let tap = match interface.tap_fd {
            Some(fd) => Tap::inherited(fd, name),
            None => {
                if let Some(bridge) = &interface.bridge {
                    log::warn!(
                        "{key}.bridge: only the jailer attaches {name} to {bridge}; without it the tap must exist"
                    );
                }
                Tap::open(name)
            }
        };
        let tap = tap.map_err(BuildError::host(format!("{key}.host_dev_name")))?;
        let options = NetOptions {
            mac: interface.guest_mac.map(|mac| mac.0),
            mtu: interface.mtu,
            rx_rate_limiter: interface.rx_rate_limiter.unwrap_or_default(),
            tx_rate_limiter: interface.tx_rate_limiter.unwrap_or_default(),
            responder,
        };
        Ok(Self::new(tap, options))
    }
}

impl VirtioDevice for Net {
    fn offer(&self) -> Offer {
        Offer {
            id: VIRTIO_ID_NET,
            features: self.features,
            queue_sizes: vec![QUEUE_SIZE; 2],
            loops: Loops::Shared,
        }
    }

    fn config(&self) -> Cow<'_, [u8]> {
        (&self.config).into()
    }

    fn start(&mut self, features: u64) -> io::Result<Box<dyn QueueHandler>> {
        let has = |feature: u32| features & 1 << feature != 0;
        let checksum = has(VIRTIO_NET_F_GUEST_CSUM);
        let tap = self.tap.try_clone()?;
        let taken = tap.set_offload(Offload {
            checksum,
            // Section 5.1.3.1: segmentation needs the checksum.
            tso4: checksum && has(VIRTIO_NET_F_GUEST_TSO4),
            tso6: checksum && has(VIRTIO_NET_F_GUEST_TSO6),
        });
        if let Err(e) = taken {
            // The tap was removed. The guest may run on without a network.
            log::warn!("the tap refused the offloads that the guest accepted: {e}");
        }
        lock(&self.shared).start();
        let layout = match has(VIRTIO_NET_F_MRG_RXBUF) {
            true => Layout::Merged {
                count_at: NUM_BUFFERS,
            },
            false => Layout::OneChain,
        };
        Ok(Box::new(NetHandler::new(
            tap,
            layout,
            self.shared.clone(),
            (self.rx_limits.throttle()?, self.tx_limits.throttle()?),
            self.metrics.clone(),
        )?))
    }

    fn start_failed(&mut self) {
        self.metrics.activate_fails.increment();
    }

    fn reset(&mut self) {
        lock(&self.shared).reset();
    }

    fn update(&mut self, change: DeviceUpdate) -> Result<(), UpdateError> {
        let DeviceUpdate::Limits { direction, change } = change else {
            return Err(UpdateError::Unsupported);
        };
        if direction != Direction::Transmit {
            self.rx_limits.update(&change);
        }
        if direction != Direction::Receive {
            self.tx_limits.update(&change);
        }
        Ok(())
    }

    fn metrics(&self) -> Option<Arc<dyn MetricSet>> {
        Some(self.metrics.clone())
    }

    fn save(&self) -> DeviceState {
        let saved = Saved {
            rx_limits: self.rx_limits.levels(),
            tx_limits: self.tx_limits.levels(),
        };
        DeviceState::encode(STATE_VERSION, &saved)
    }

    fn restore(&mut self, state: &DeviceState) -> Result<(), StateError> {
        let saved: Saved = state.decode(STATE_VERSION)?;
        if !saved.rx_limits.can_be() || !saved.tx_limits.can_be() {
            return Err(StateError::Value("rate limiter"));
        }
        self.rx_limits.set_levels(&saved.rx_limits)?;
        self.tx_limits.set_levels(&saved.tx_limits)
    }
}

#[cfg(test)]
#[path = "net_test.rs"]
mod net_test;
