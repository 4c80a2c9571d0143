//! The serial port of the console: a 16550A by vm-superio, with the terminal's input.

use crate::bus::BusDevice;
use crate::metric_set;
use crate::metrics::Counter;
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// Offset of the modem control register, whose loop-back holds up input.
const MODEM_CONTROL: u8 = 4;

/// Most bytes of input kept for a guest that does not read: a pasted script fits.
const MAX_PENDING: usize = 64 << 10;

/// An interrupt line as vm-superio asks for it.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Notes that the guest has read all input, so that more may follow.
#[derive(Default)]
struct InputEmpty(std::sync::atomic::AtomicBool);

impl SerialEvents for InputEmpty {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

metric_set! {
    /// What the port counts.
    pub struct SerialMetrics = "uart" {
        /// Accesses the port failed, output that could not be written among them.
        error_count: Counter,
        /// Always 0: nothing is held back.
        flush_count: Counter,
        /// Reads of no register, or of more than a byte.
        missed_read_count: Counter,
        /// Writes likewise.
        missed_write_count: Counter,
        /// Bytes read.
        read_count: Counter,
        /// Bytes written.
        write_count: Counter,
        /// Of these, bytes above the limit of the output, which were lost.
        rate_limiter_dropped_bytes: Counter,
    }
}

/// The port: eight byte-wide registers.
pub struct SerialPort {
    uart: Serial<Line, Arc<InputEmpty>, Box<dyn Write + Send>>,
    empty: Arc<InputEmpty>,
    pending: VecDeque<u8>,
    metrics: Arc<SerialMetrics>,
}

impl SerialPort {
    /// Writes what the guest sends to `output`, interrupts it through `irq`, and counts in `metrics`, as `output`
    /// may.
    pub fn new(irq: EventFd, output: Box<dyn Write + Send>, metrics: Arc<SerialMetrics>) -> Self {
        let empty = Arc::new(InputEmpty::default());
        Self {
            uart: Serial::with_events(Line(irq), empty.clone(), output),
            empty,
            pending: VecDeque::new(),
            metrics,
        }
    }

    /// Gives the guest `bytes`; what its FIFO does not hold follows as it reads. Returns how many were
    /// taken: fewer than all if the guest has left 64 KiB unread.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let room = MAX_PENDING.saturating_sub(self.pending.len());
        let taken = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        self.pending.extend(taken);
        self.feed();
        taken.len()
    }

    /// Bytes [`Self::input`] will take.
    pub fn room(&self) -> usize {
        MAX_PENDING.saturating_sub(self.pending.len())
    }

    fn feed(&mut self) {
        let (front, _) = self.pending.as_slices();
        let now = front.get(..front.len().min(self.uart.fifo_capacity()));
        let Some(now) = now.filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        match self.uart.enqueue_raw_bytes(now) {
            Ok(taken) => drop(self.pending.drain(..taken)),
            Err(e) => log::debug!("serial input: {e}"),
        }
    }
}

impl BusDevice for SerialPort {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        match (data, u8::try_from(offset)) {
            ([value], Ok(register)) => {
                *value = self.uart.read(register);
                self.metrics.read_count.increment();
            }
            _ => self.metrics.missed_read_count.increment(),
        }
        if self
            .empty
            .0
            .swap(false, std::sync::atomic::Ordering::Relaxed)
        {
            self.feed();
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        let ([value], Ok(register)) = (data, u8::try_from(offset)) else {
            return self.metrics.missed_write_count.increment();
        };
        self.metrics.write_count.increment();
        if let Err(e) = self.uart.write(register, *value) {
            log::debug!("serial output: {e}");
            self.metrics.error_count.increment();
        }
        if register == MODEM_CONTROL {
            self.feed();
        }
    }
}

#[cfg(test)]
#[path = "serial_test.rs"]
mod serial_test;
