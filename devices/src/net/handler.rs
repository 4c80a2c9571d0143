//! The queue-serving half of a network card: moves packets between tap, responder and rings within the limits.

use super::metrics::NetMetrics;
use super::responder::{self, Responder};
use super::tap::{HEADER, Tap};
use super::{MAX_PACKET, NUM_BUFFERS, RX, TX};
use crate::GuestMemory;
use crate::lock;
use crate::util::source::Source;
use crate::util::timer::{Timer, now};
use crate::virtio::buffers::{ChainBuffers, Parts};
use crate::virtio::device::QueueHandler;
use crate::virtio::queue::{DeviceQueue, Layout, Placed, QueueError, Served};
use crate::virtio::throttle::Throttle;
use event_manager::EventSet;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex};

/// Largest number of packets read from the tap in one turn.
pub(super) const RX_BUDGET: usize = 256;

/// State that outlives a pause. Both halves own it; the running one uses it.
pub(super) struct Shared {
    held: Held,
    responder: Option<Box<dyn Responder>>,
}

/// A packet for the driver that has not been delivered yet; none if `len` is 0.
struct Held {
    packet: Vec<u8>,
    len: usize,
    /// True if the rate limiter has admitted the packet, which waits for buffers.
    admitted: bool,
}

impl Shared {
    pub(super) fn new(responder: Option<Box<dyn Responder>>) -> Self {
        Self {
            held: Held {
                packet: Vec::new(),
                len: 0,
                admitted: false,
            },
            responder,
        }
    }

    /// Called when the driver is ready.
    pub(super) fn start(&mut self) {
        self.held.packet.resize(MAX_PACKET, 0);
    }

    /// Drops the undelivered packet, because the next driver may not understand its header.
    pub(super) fn reset(&mut self) {
        self.held.len = 0;
    }
}

/// A source of events besides the queues.
#[derive(Clone, Copy)]
enum Wake {
    Tap,
    RxLimits,
    TxLimits,
    Responder,
}

pub(super) struct NetHandler {
    tap: Tap,
    layout: Layout,
    shared: Arc<Mutex<Shared>>,
    rx_throttle: Throttle,
    tx_throttle: Throttle,
    /// Timer for the responder's deadline; `None` without a responder.
    timer: Option<Timer>,
    /// Sources by token.
    wakes: Vec<Wake>,
    /// True once a failure of the tap was logged.
    tap_failed: bool,
    metrics: Arc<NetMetrics>,
}

impl NetHandler {
    /// `throttles` limit receiving and sending, in this order.
    pub(super) fn new(
        tap: Tap,
        layout: Layout,
        shared: Arc<Mutex<Shared>>,
        throttles: (Throttle, Throttle),
        metrics: Arc<NetMetrics>,
    ) -> io::Result<Self> {
        let (rx_throttle, tx_throttle) = throttles;
        let responds = lock(&shared).responder.is_some();
        let wakes = [
            (true, Wake::Tap),
            (rx_throttle.limits(), Wake::RxLimits),
            (tx_throttle.limits(), Wake::TxLimits),
            (responds, Wake::Responder),
        ];
        let handler = Self {
            tap,
            layout,
            shared,
            rx_throttle,
            tx_throttle,
            timer: responds.then(Timer::new).transpose()?,
            wakes: wakes
                .into_iter()
                .filter_map(|(there, wake)| there.then_some(wake))
                .collect(),
            tap_failed: false,
            metrics,
        };
        handler.ask_deadline(&mut lock(&handler.shared));
        Ok(handler)
    }

    fn source(&self, wake: Wake) -> io::Result<Option<Source>> {
        match wake {
            Wake::Tap => Ok(Some(Source {
                fd: self.tap.as_fd().try_clone_to_owned()?,
                // Packets stay in the tap while the driver has no buffers.
                events: EventSet::IN | EventSet::EDGE_TRIGGERED,
            })),
            Wake::RxLimits => self.rx_throttle.source(),
            Wake::TxLimits => self.tx_throttle.source(),
            Wake::Responder => self.timer.as_ref().map(Timer::source).transpose(),
        }
    }

    /// Sets the timer to the responder's next deadline.
    fn ask_deadline(&self, shared: &mut Shared) {
        if let (Some(timer), Some(responder)) = (&self.timer, &mut shared.responder) {
            match responder.deadline() {
                Some(delay) => timer.set(now().saturating_add(delay)),
                None => timer.clear(),
            }
        }
    }
}

impl QueueHandler for NetHandler {
    fn sources(&self) -> io::Result<Vec<Source>> {
        let sources = self.wakes.iter().map(|wake| self.source(*wake));
        sources.filter_map(Result::transpose).collect()
    }

    fn on_queue(&mut self, index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        match index {
            RX => self.metrics.rx_queue_event_count.increment(),
            _ => self.metrics.tx_queue_event_count.increment(),
        }
        self.serve(index, queues)
    }

    fn on_source(&mut self, token: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        let queue = match self.wakes.get(token) {
            Some(Wake::TxLimits) => {
                self.tx_throttle.acknowledge();
                self.metrics.tx_rate_limiter_event_count.increment();
                TX
            }
            Some(Wake::RxLimits) => {
                self.rx_throttle.acknowledge();
                self.metrics.rx_event_rate_limiter_count.increment();
                RX
            }
            Some(Wake::Responder) => {
                self.timer.as_ref().inspect(|timer| timer.acknowledge());
                let mut shared = lock(&self.shared);
                if let Some(responder) = &mut shared.responder {
                    responder.poll();
                }
                self.ask_deadline(&mut shared);
                RX
            }
            Some(Wake::Tap) | None => {
                self.metrics.rx_tap_event_count.increment();
                RX
            }
        };
        self.serve(queue, queues)
    }
}

impl NetHandler {
    fn serve(&mut self, index: usize, queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        let [rx, tx, ..] = queues else {
            return Ok(());
        };
        let shared = self.shared.clone();
        let mut shared = lock(&shared);
        let sent = match index == TX && tx.is_ready() {
            true => self.transmit(tx, shared.responder.as_deref_mut()),
            false => Ok(()),
        };
        let answers = shared.responder.is_some();
        let received = match (index == RX || answers) && rx.is_ready() {
            true => self.receive(rx, &mut shared),
            false => Ok(()),
        };
        self.ask_deadline(&mut shared);
        sent.and(received)
            .inspect_err(|_| self.metrics.event_fails.increment())
    }

    fn receive(&mut self, rx: &mut DeviceQueue, shared: &mut Shared) -> Result<(), QueueError> {
        let Shared { held, responder } = shared;
        for _ in 0..RX_BUDGET {
            if held.len == 0 {
                match self.next_packet(&mut held.packet, responder.as_deref_mut()) {
                    None => return rx.signal(),
                    // Too short for its header; the next packet may be valid.
                    Some(len) if len <= HEADER => continue,
                    Some(len) => (held.len, held.admitted) = (len, false),
                }
            }
            let frame_len = held.len - HEADER;
            if !held.admitted && !self.rx_throttle.admits(frame_len) {
                self.metrics.rx_rate_limiter_throttled.increment();
                return rx.signal();
            }
            held.admitted = true;
            let packet = held.packet.get_mut(..held.len).unwrap_or_default();
            match rx.place(packet, self.layout)? {
                Placed::Yes => {
                    held.len = 0;
                    self.metrics.rx_packets_count.increment();
                    self.metrics.rx_bytes_count.add_bytes(frame_len);
                }
                Placed::NoRoom => {
                    self.metrics.no_rx_avail_buffer.increment();
                    return rx.signal();
                }
                Placed::TooLong => {
                    log::debug!(
                        "dropped a packet of {} bytes: the guest's buffers are smaller",
                        held.len
                    );
                    held.len = 0;
                    self.metrics.rx_fails.increment();
                }
            }
        }
        // The edge-triggered event is used up, and packets may be left.
        rx.ring()?;
        rx.signal()
    }

    /// Reads the next packet into `packet` and returns its length; `None` if there is none.
    fn next_packet(
        &mut self,
        packet: &mut [u8],
        responder: Option<&mut (dyn Responder + 'static)>,
    ) -> Option<usize> {
        let len = match responder.and_then(|responder| own_frame(responder, packet)) {
            Some(len) => len,
            None => self.read_tap(packet)?,
        };
        // Section 5.1.6.4.1: 1, unless buffers are merged and the ring sets it.
        if let Some(field) = packet.get_mut(NUM_BUFFERS..HEADER) {
            field.copy_from_slice(&1_u16.to_le_bytes());
        }
        Some(len)
    }

    fn read_tap(&mut self, packet: &mut [u8]) -> Option<usize> {
        let error = match self.tap.read(packet) {
            // An empty packet or the end of the file: no packet will follow.
            Ok(0) => io::ErrorKind::UnexpectedEof.into(),
            Ok(len) => {
                self.metrics.rx_count.increment();
                return Some(len);
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => return Some(0),
            Err(e) => e,
        };
        self.metrics.tap_read_fails.increment();
        self.tell_once("read", &error);
        None
    }

    fn transmit(
        &mut self,
        tx: &mut DeviceQueue,
        mut responder: Option<&mut (dyn Responder + 'static)>,
    ) -> Result<(), QueueError> {
        tx.serve(|mem, chain| {
            let readable = match ChainBuffers::collect(chain) {
                Ok(ChainBuffers { readable, .. }) if readable.len() <= MAX_PACKET => readable,
                Ok(_) => return self.malformed("it is too long"),
                Err(e) => return self.malformed(&e.to_string()),
            };
            let frame_len = readable.len().saturating_sub(HEADER);
            if !self.tx_throttle.admits(frame_len) {
                self.metrics.tx_rate_limiter_throttled.increment();
                return Served::NotYet;
            }
            let taken = responder.as_deref_mut().is_some_and(|responder| {
                let frame = readable.clone().split_at(HEADER);
                frame.is_some_and(|(_, frame)| responder::offer(responder, mem, frame))
            });
            if !taken {
                self.send(mem, &readable, frame_len);
            }
            Served::Done(0)
        })
    }

    fn malformed(&self, why: &str) -> Served {
        log::debug!("dropped a packet from the guest: {why}");
        self.metrics.tx_malformed_frames.increment();
        Served::Done(0)
    }

    fn send(&mut self, mem: &GuestMemory, packet: &Parts, frame_len: usize) {
        let started = now();
        let error = match packet.send(mem, self.tap.as_fd()) {
            Ok(_) => {
                let time = now().saturating_sub(started);
                self.metrics.tap_write_agg.record(time);
                self.metrics.tx_count.increment();
                self.metrics.tx_packets_count.increment();
                self.metrics.tx_bytes_count.add_bytes(frame_len);
                return;
            }
            Err(e) => e,
        };
        self.metrics.tx_fails.increment();
        match error.kind() {
            // A packet that the kernel refuses, or has no room for, is lost as on a wire.
            io::ErrorKind::InvalidInput
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::Interrupted => log::debug!("dropped a packet: {error}"),
            _ => {
                self.metrics.tap_write_fails.increment();
                self.tell_once("write", &error);
            }
        }
    }

    fn tell_once(&mut self, what: &str, error: &io::Error) {
        if !self.tap_failed {
            self.tap_failed = true;
            log::warn!("cannot {what} the tap, the guest runs on without it: {error}");
        }
    }
}

/// Writes the responder's next frame into `packet`, after an empty header.
fn own_frame(responder: &mut dyn Responder, packet: &mut [u8]) -> Option<usize> {
    let (header, frame) = packet.split_at_mut_checked(HEADER)?;
    let len = responder.next_frame(frame)?;
    header.fill(0);
    Some(HEADER + len.min(frame.len()))
}
