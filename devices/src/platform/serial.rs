//! The serial port of the console: a 16550A by vm-superio, with the terminal's input.

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

/// Offset of the modem control register, whose loop-back holds up input.
const MODEM_CONTROL: u8 = 4;

/// Most bytes of input kept for a guest that does not read: a pasted script fits.
const MAX_PENDING: usize = 64 << 10;

/// Bit of the line status: the FIFO has something. All else hangs on it.
const DATA_READY: u8 = 1;
/// Bytes of the receiving FIFO.
const FIFO: usize = 64;

/// The port, saved. Registers can have any value: some are just the guest's.
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
    /// What is in the receiving FIFO.
    pub fifo: Vec<u8>,
    /// Input that does not fit there yet.
    pub pending: Vec<u8>,
}

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

    /// What a guest may be amid.
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

    /// Goes on from `state`, and raises the interrupt that was pending.
    ///
    /// # Errors
    /// [`PlatformStateError`].
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
        // A port without an output, for as long as that is on its way to the new one.
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
            Err(e) => log::debug!("serial input: {e}"),
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
