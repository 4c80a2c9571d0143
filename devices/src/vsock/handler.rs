//! The queue-serving half of the socket device: moves packets between the rings and the router.

use super::metrics::VsockMetrics;
use super::packet::{HEADER, Header};
use super::router::Router;
use super::{EVENTS, RX, TX};
use crate::GuestMemory;
use crate::lock;
use crate::util::source::Source;
use crate::virtio::buffers::{ChainBuffers, Parts};
use crate::virtio::device::QueueHandler;
use crate::virtio::queue::{DeviceQueue, Layout, Placed, QueueError, Served};
use event_manager::EventSet;
use std::io;
use std::sync::{Arc, Mutex};

/// VIRTIO_VSOCK_EVENT_TRANSPORT_RESET (section 5.10.6.7).
const TRANSPORT_RESET: u32 = 0;

pub(super) struct VsockHandler {
    router: Arc<Mutex<Router>>,
    /// True if the guest's packets wait until the guest has taken the refusals for it.
    waits: bool,
    metrics: Arc<VsockMetrics>,
}

impl VsockHandler {
    pub(super) fn new(router: Arc<Mutex<Router>>, metrics: Arc<VsockMetrics>) -> Self {
        Self {
            router,
            waits: false,
            metrics,
        }
    }

    /// Serves the transmit queue if `transmit`, then the receive queue.
    fn serve(&mut self, transmit: bool, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        let [rx, tx, ..] = queues else {
            return Ok(());
        };
        let router = self.router.clone();
        let mut router = lock(&router);
        if transmit && tx.is_ready() {
            self.transmit(tx, &mut router)
                .inspect_err(|_| self.metrics.tx_queue_event_fails.increment())?;
        }
        if rx.is_ready() {
            self.receive(rx, &mut router)
                .inspect_err(|_| self.metrics.rx_queue_event_fails.increment())?;
        }
        // Not at once, so that other devices of the loop get a turn.
        if self.waits && router.has_room() {
            self.waits = false;
            tx.ring()?;
        }
        Ok(())
    }

    /// Notifies a restored guest that its connections are closed, in the first event buffer it provides. Without a restore
    /// the event buffers stay unused.
    fn tell_reset(&self, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        let mut router = lock(&self.router);
        let Some(events) = queues.get_mut(EVENTS).filter(|queue| queue.is_ready()) else {
            return Ok(());
        };
        if !router.owes_reset() {
            return Ok(());
        }
        match events.place(&mut TRANSPORT_RESET.to_le_bytes(), Layout::OneChain) {
            Ok(Placed::NoRoom) => return Ok(()),
            // A driver whose buffer is too short does not want the event.
            Ok(Placed::Yes | Placed::TooLong) => router.reset_was_reported(),
            Err(e) => {
                self.metrics.ev_queue_event_fails.increment();
                return Err(e);
            }
        }
        events.signal()
    }

    /// Handles the guest's packets.
    fn transmit(&mut self, tx: &mut DeviceQueue, router: &mut Router) -> Result<(), QueueError> {
        tx.serve(|mem, chain| {
            if !router.has_room() {
                self.waits = true;
                return Served::NotYet;
            }
            match ChainBuffers::collect(chain) {
                Ok(ChainBuffers { readable, .. }) => take(mem, readable, router),
                Err(e) => log::debug!("vsock: dropped a packet from the guest: {e}"),
            }
            Served::Done(0)
        })
    }

    /// Delivers packets to the guest.
    fn receive(&mut self, rx: &mut DeviceQueue, router: &mut Router) -> Result<(), QueueError> {
        rx.serve(|mem, chain| {
            if !router.has_packets() {
                return Served::NotYet;
            }
            let room = match ChainBuffers::collect(chain) {
                Ok(ChainBuffers { writable, .. }) if writable.len() > HEADER => writable,
                _ => {
                    log::debug!("vsock: a guest buffer is too small for a packet");
                    return Served::Done(0);
                }
            };
            give(mem, room, router)
        })
    }
}

/// Handles one packet from the guest.
fn take(mem: &GuestMemory, packet: Parts, router: &mut Router) {
    let mut header = [0; HEADER];
    let Some((head, body)) = packet.split_at(HEADER) else {
        return log::debug!("vsock: dropped a packet from the guest without a header");
    };
    if let Err(e) = head.read(mem, &mut header) {
        return log::debug!("vsock: dropped a packet from the guest: {e}");
    }
    let header = Header::parse(&header);
    let len = usize::try_from(header.len).unwrap_or(usize::MAX);
    let read = match router.payload(len) {
        Some(payload) => body.read(mem, payload).is_ok(),
        None => false,
    };
    match read {
        true => router.take(&header),
        false => router.take_malformed(&header),
    }
}

/// Delivers the next packet into `room`, which is larger than a header.
fn give(mem: &GuestMemory, room: Parts, router: &mut Router) -> Served {
    let Some((head, body)) = room.split_at(HEADER) else {
        return Served::Done(0);
    };
    let Some((header, payload)) = router.next(body.len()) else {
        return Served::NotYet;
    };
    let len = HEADER + payload.len();
    let written = head
        .write(mem, &header.to_bytes())
        .and_then(|()| body.write(mem, payload));
    match written {
        Ok(()) => Served::Done(u32::try_from(len).unwrap_or_default()),
        Err(e) => {
            log::debug!("vsock: lost a packet for the guest: {e}");
            router.lost(&header);
            Served::Done(0)
        }
    }
}

impl QueueHandler for VsockHandler {
    fn sources(&self) -> io::Result<Vec<Source>> {
        Ok(vec![Source {
            fd: lock(&self.router).descriptor()?,
            // Level-triggered: one turn may not empty it, but each turn makes progress.
            events: EventSet::IN,
        }])
    }

    fn on_queue(&mut self, index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        match index {
            RX => self.metrics.rx_queue_event_count.increment(),
            TX => self.metrics.tx_queue_event_count.increment(),
            EVENTS => return self.tell_reset(queues),
            _ => return Ok(()),
        }
        self.serve(index == TX, queues)
    }

    fn on_source(&mut self, _token: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        lock(&self.router).on_ready();
        self.serve(false, queues)
    }
}
