//! The serial port of the console: vm-superio's 16550A with a queue for input.

use crate::bus::BusDevice;
use crate::metric_set;
use crate::platform::state::PlatformStateError;
use crate::util::metrics::Counter;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Arc;
use vm_superio::serial::SerialEvents;
use vm_superio::serial::SerialState as UartState;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::EventFd;

/// Offset of the modem control register. Its loop-back bit delays input.
const MODEM_CONTROL: u8 = 4;

/// Largest number of queued input bytes for a guest that does not read; a pasted script fits.
const MAX_PENDING: usize = 64 << 10;

/// Line status: the receive FIFO has a byte. Derived from the FIFO on restore.
const DATA_READY: u8 = 1;
/// Bytes of the receive FIFO.
const FIFO: usize = 64;

/// Saved state of the port. Every register value is valid.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SerialState {
    /// Divisor latch, low and high byte.
    pub divisor: [u8; 2],
    /// Interrupt enable register.
    pub interrupt_enable: u8,
    /// Interrupt identification register.
    pub interrupt_identification: u8,
    /// Line control register.
    pub line_control: u8,
    /// Line status register.
    pub line_status: u8,
    /// Modem control register.
    pub modem_control: u8,
    /// Modem status register.
    pub modem_status: u8,
    /// Scratch register.
    pub scratch: u8,
    /// Bytes in the receive FIFO.
    pub fifo: Vec<u8>,
    /// Queued input that does not fit into the FIFO yet.
    pub pending: Vec<u8>,
}

/// The interrupt line, as vm-superio triggers it.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Records that the guest has emptied the FIFO, so that more input can follow.
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
    /// Metrics of the port.
    pub struct SerialMetrics = "uart" {
        /// Failed accesses, including output that could not be written.
        error_count: Counter,
        /// Always 0: output is never held back.
        flush_count: Counter,
        /// Reads of an unknown register, or wider than a byte.
        missed_read_count: Counter,
        /// Writes to an unknown register, or wider than a byte.
        missed_write_count: Counter,
        /// Bytes read.
        read_count: Counter,
        /// Bytes written.
        write_count: Counter,
        /// Bytes of output dropped by the rate limiter.
        rate_limiter_dropped_bytes: Counter,
    }
}

/// The serial port: eight byte-wide registers.
pub struct SerialPort {
    uart: Serial<Line, Arc<InputEmpty>, Box<dyn Write + Send>>,
    empty: Arc<InputEmpty>,
    pending: VecDeque<u8>,
    metrics: Arc<SerialMetrics>,
}

impl SerialPort {
    /// Creates a port that writes the guest's output to `output` and interrupts through `irq`. `output` may count in
    /// `metrics`, too.
    pub fn new(irq: EventFd, output: Box<dyn Write + Send>, metrics: Arc<SerialMetrics>) -> Self {
        let empty = Arc::new(InputEmpty::default());
        Self {
            uart: Serial::with_events(Line(irq), empty.clone(), output),
            empty,
            pending: VecDeque::new(),
            metrics,
        }
    }

    /// Queues `bytes` as input. Returns the number of bytes taken, which is smaller than all if 64 KiB are queued
    /// unread.
    pub fn input(&mut self, bytes: &[u8]) -> usize {
        let room = MAX_PENDING.saturating_sub(self.pending.len());
        let taken = bytes.get(..bytes.len().min(room)).unwrap_or_default();
        self.pending.extend(taken);
        self.feed();
        taken.len()
    }

    /// Returns the number of bytes that [`Self::input`] will take.
    pub fn room(&self) -> usize {
        MAX_PENDING.saturating_sub(self.pending.len())
    }

    /// Saves the device's state.
    pub fn save(&self) -> SerialState {
        let uart = self.uart.state();
        SerialState {
            divisor: [uart.baud_divisor_low, uart.baud_divisor_high],
            interrupt_enable: uart.interrupt_enable,
            interrupt_identification: uart.interrupt_identification,
            line_control: uart.line_control,
            line_status: uart.line_status,
            modem_control: uart.modem_control,
            modem_status: uart.modem_status,
            scratch: uart.scratch,
            fifo: uart.in_buffer,
            pending: self.pending.iter().copied().collect(),
        }
    }

    /// Loads `state`, and raises the interrupt that was pending.
    ///
    /// # Errors
    /// [`PlatformStateError`]: the saved state has too many bytes, or the interrupt cannot be raised.
    pub fn restore(&mut self, state: &SerialState) -> Result<(), PlatformStateError> {
        for (saved, most) in [(&state.fifo, FIFO), (&state.pending, MAX_PENDING)] {
            if saved.len() > most {
                return Err(PlatformStateError::TooMuch {
                    device: "serial port",
                    saved: saved.len(),
                    most,
                });
            }
        }
        let line = || self.uart.interrupt_evt().0.try_clone().map(Line);
        let [before, after] = [line(), line()];
        let (before, after) = (
            before.map_err(PlatformStateError::Signal)?,
            after.map_err(PlatformStateError::Signal)?,
        );
        // A placeholder that holds no output, while the output moves to the restored port.
        let nowhere: Box<dyn Write + Send> = Box::new(io::sink());
        let between = Serial::with_events(before, self.empty.clone(), nowhere);
        let output = std::mem::replace(&mut self.uart, between).into_writer();
        let uart = Serial::from_state(&uart_state(state), after, self.empty.clone(), output);
        self.uart =
            uart.map_err(|e| PlatformStateError::Signal(io::Error::other(e.to_string())))?;
        self.pending = state.pending.iter().copied().collect();
        if state.fifo.is_empty() {
            self.feed();
        }
        Ok(())
    }

    fn feed(&mut self) {
        let (front, _) = self.pending.as_slices();
        let now = front.get(..front.len().min(self.uart.fifo_capacity()));
        let Some(now) = now.filter(|bytes| !bytes.is_empty()) else {
            return;
        };
        match self.uart.enqueue_raw_bytes(now) {
            Ok(taken) => drop(self.pending.drain(..taken)),
            Err(e) => log::debug!("serial port: cannot enqueue input: {e}"),
        }
    }
}

fn uart_state(state: &SerialState) -> UartState {
    let [baud_divisor_low, baud_divisor_high] = state.divisor;
    UartState {
        baud_divisor_low,
        baud_divisor_high,
        interrupt_enable: state.interrupt_enable,
        interrupt_identification: state.interrupt_identification,
        line_control: state.line_control,
        line_status: state.line_status & !DATA_READY | u8::from(!state.fifo.is_empty()),
        modem_control: state.modem_control,
        modem_status: state.modem_status,
        scratch: state.scratch,
        in_buffer: state.fifo.clone(),
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
            log::debug!("serial port: cannot write output: {e}");
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
