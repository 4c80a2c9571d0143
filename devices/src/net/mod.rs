//! Network card (Virtio 1.2, 5.1) on a tap, with checksum and segmentation offload and mergeable
//! receive buffers.
//!
//! The tap speaks the same header as the ring, so a packet goes through untouched: the kernel
//! checks what the guest wrote in it.

pub mod tap;

use crate::buffers::ChainBuffers;
use crate::virtio::device::{Offer, QueueHandler, Source, VirtioDevice};
use crate::virtio::queue::{DeviceQueue, Layout, Placed, QueueError, Served};
use event_manager::EventSet;
use std::io;
use std::os::fd::AsFd as _;
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
/// Largest packet: what IP can name, an Ethernet header with a VLAN tag, and ours.
const MAX_PACKET: usize = 65535 + 18 + HEADER;
/// Offset of num_buffers in the header (section 5.1.6).
const NUM_BUFFERS: usize = 10;
/// Most packets taken from the tap before others on the loop have their turn.
const RX_BUDGET: usize = 256;

/// Network card.
pub struct Net {
    tap: Tap,
    features: u64,
    config: Vec<u8>,
}

impl Net {
    /// A card on `tap`. Without `mac` the driver chooses an address; without `mtu` it assumes 1500.
    pub fn new(tap: Tap, mac: Option<[u8; 6]>, mtu: Option<u16>) -> Self {
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
        }
    }
}

impl VirtioDevice for Net {
    fn offer(&self) -> Offer {
        Offer {
            id: VIRTIO_ID_NET,
            features: self.features,
            queue_sizes: vec![QUEUE_SIZE; 2],
        }
    }

    fn config(&self) -> &[u8] {
        &self.config
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
            // A tap that is gone: the guest may still run, without a network.
            log::warn!("the tap refuses what the guest takes: {e}");
        }
        Ok(Box::new(NetHandler {
            tap,
            layout: match has(VIRTIO_NET_F_MRG_RXBUF) {
                true => Layout::Merged {
                    count_at: NUM_BUFFERS,
                },
                false => Layout::OneChain,
            },
            packet: vec![0; MAX_PACKET],
            packet_len: 0,
            tap_failed: false,
        }))
    }
}

struct NetHandler {
    tap: Tap,
    layout: Layout,
    /// The packet for which the driver has no room yet; none if `packet_len` is 0.
    packet: Vec<u8>,
    packet_len: usize,
    /// So that a tap that is gone is told of once.
    tap_failed: bool,
}

impl QueueHandler for NetHandler {
    fn sources(&self) -> io::Result<Vec<Source>> {
        Ok(vec![Source {
            fd: self.tap.as_fd().try_clone_to_owned()?,
            // Packets stay in the tap while the driver has no room for them.
            events: EventSet::IN | EventSet::EDGE_TRIGGERED,
        }])
    }

    fn on_queue(&mut self, index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        match (index, queues) {
            (RX, [rx, ..]) => self.receive(rx),
            (TX, [_, tx, ..]) => self.transmit(tx),
            _ => Ok(()),
        }
    }

    fn on_source(&mut self, _token: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        self.on_queue(RX, queues)
    }
}

impl NetHandler {
    fn receive(&mut self, rx: &mut DeviceQueue) -> Result<(), QueueError> {
        if !rx.is_ready() {
            return Ok(());
        }
        for _ in 0..RX_BUDGET {
            if self.packet_len == 0 {
                match self.read_packet() {
                    None => return rx.signal(),
                    // Shorter than its header it is none; the next may be one.
                    Some(len) if len <= HEADER => continue,
                    Some(len) => self.packet_len = len,
                }
            }
            let packet = self.packet.get_mut(..self.packet_len).unwrap_or_default();
            match rx.place(packet, self.layout)? {
                Placed::Yes => self.packet_len = 0,
                Placed::NoRoom => return rx.signal(),
                Placed::TooLong => {
                    log::debug!(
                        "dropped a packet of {} bytes: the guest's buffers are shorter",
                        self.packet_len
                    );
                    self.packet_len = 0;
                }
            }
        }
        // The edge is used up and packets may be left.
        rx.ring()?;
        rx.signal()
    }

    /// Length of the next packet, which is then in `packet`; `None` if there is none to wait for.
    fn read_packet(&mut self) -> Option<usize> {
        let error = match self.tap.read(&mut self.packet) {
            // A packet that carried nothing, or an end: nothing may follow, ever.
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(len) => {
                // Section 5.1.6.4.1: 1 unless buffers are merged, when the ring knows better.
                if let Some(field) = self.packet.get_mut(NUM_BUFFERS..HEADER) {
                    field.copy_from_slice(&1_u16.to_le_bytes());
                }
                return Some(len);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Some(0),
            Err(e) => e,
        };
        self.tell_once("read", &error);
        None
    }

    fn transmit(&mut self, tx: &mut DeviceQueue) -> Result<(), QueueError> {
        tx.serve(|mem, chain| {
            let sent = match ChainBuffers::collect(chain) {
                Ok(buffers) if buffers.readable.len() > MAX_PACKET => {
                    Err(io::ErrorKind::InvalidInput.into())
                }
                Ok(buffers) => buffers.readable.send(mem, self.tap.as_fd()),
                Err(e) => Err(io::Error::new(io::ErrorKind::InvalidInput, e)),
            };
            match sent {
                Ok(_) => {}
                // A packet the kernel refuses, or one more than it holds, is dropped like on a wire.
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::InvalidInput
                            | io::ErrorKind::WouldBlock
                            | io::ErrorKind::Interrupted
                    ) =>
                {
                    log::debug!("dropped a packet: {e}");
                }
                Err(e) => self.tell_once("write", &e),
            }
            Served::Done(0)
        })
    }

    fn tell_once(&mut self, what: &str, error: &io::Error) {
        if !self.tap_failed {
            self.tap_failed = true;
            log::warn!("cannot {what} the tap, the guest goes on without it: {error}");
        }
    }
}

#[cfg(test)]
#[path = "net_test.rs"]
mod net_test;
