//! The keyboard controller at ports 0x60 and 0x64: the part of an Intel 8042 and its keyboard that a kernel's probe
//! and a reset through it need.
//!
//! The ports are always decoded, because unanswered ports delay the boot of a stock kernel by about a second. There is
//! no auxiliary (mouse) port.

use crate::bus::BusDevice;
use crate::metric_set;
use crate::platform::guest_event::{EventSink, GuestEvent};
use crate::platform::state::PlatformStateError;
use crate::util::metrics::Counter;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::Arc;
use vmm_sys_util::eventfd::EventFd;

/// Offset of the data register, port 0x60.
const DATA: u64 = 0;
/// Offset of the status (read) and command (write) register, port 0x64.
const COMMAND: u64 = 4;
/// Bytes of the range.
pub const LEN: u64 = 5;

/// Status: the output buffer holds a byte for the driver.
const OUTPUT_FULL: u8 = 1 << 0;
/// Status: the controller passed its self-test.
const SYSTEM: u8 = 1 << 2;
/// Status: the keyboard lock is off.
const UNLOCKED: u8 = 1 << 4;
/// Configuration byte: interrupt when the output buffer has a byte.
const INTERRUPT: u8 = 1 << 0;
/// Configuration byte: the keyboard is disabled.
const KEYBOARD_OFF: u8 = 1 << 4;
/// Configuration byte: translate scan code set 2 to set 1.
const TRANSLATE: u8 = 1 << 6;
/// Size of the output buffer in bytes. A real controller holds one byte, a keyboard sixteen.
const MAX_OUTPUT: usize = 16;

/// The keyboard's acknowledgement of a command.
const ACK: u8 = 0xfa;

/// The meaning of the next byte written to the data register.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expect {
    /// A command for the keyboard.
    Keyboard,
    /// The configuration byte.
    Configuration,
    /// The output port. Bit 0 clear resets the machine.
    OutputPort,
    /// A byte to return as if the keyboard had sent it.
    Echo,
    /// A byte for the auxiliary device, which is absent.
    Auxiliary,
    /// The argument of a keyboard command.
    Argument,
}

metric_set! {
    /// Metrics of the controller.
    pub struct I8042Metrics = "i8042" {
        /// Interrupts that could not be raised.
        error_count: Counter,
        /// Reads of an unknown register, or wider than a byte.
        missed_read_count: Counter,
        /// Writes to an unknown register, or wider than a byte.
        missed_write_count: Counter,
        /// Bytes read.
        read_count: Counter,
        /// Machine resets requested by the guest.
        reset_count: Counter,
        /// Bytes written.
        write_count: Counter,
    }
}

/// Ctrl, Alt and Del pressed and released, in scan code set 1 (translation on).
const CTRL_ALT_DEL_TRANSLATED: [u8; 8] = [0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d];
/// The same keys in scan code set 2 (translation off).
const CTRL_ALT_DEL: [u8; 11] = [
    0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0, 0x71, 0xf0, 0x11, 0xf0, 0x14,
];

/// Saved state of the controller and its keyboard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct I8042State {
    /// The configuration byte.
    pub configuration: u8,
    /// The meaning of the next byte written to the data register.
    pub expect: Expect,
    /// Unread bytes of the output buffer.
    pub output: Vec<u8>,
}

/// The controller and its keyboard.
pub struct I8042 {
    events: EventSink,
    irq: EventFd,
    configuration: u8,
    expect: Expect,
    output: VecDeque<u8>,
    metrics: Arc<I8042Metrics>,
}

impl I8042 {
    /// Creates a controller that interrupts through `irq` and reports resets to `events`.
    pub fn new(irq: EventFd, events: EventSink) -> Self {
        Self {
            events,
            irq,
            configuration: INTERRUPT | TRANSLATE,
            expect: Expect::Keyboard,
            output: VecDeque::new(),
            metrics: Arc::default(),
        }
    }

    /// Returns the counters.
    pub fn metrics(&self) -> Arc<I8042Metrics> {
        self.metrics.clone()
    }

    /// Saves the device's state.
    pub fn save(&self) -> I8042State {
        I8042State {
            configuration: self.configuration,
            expect: self.expect,
            output: self.output.iter().copied().collect(),
        }
    }

    /// Loads `state`, and raises the interrupt if the output buffer has bytes.
    ///
    /// # Errors
    /// [`PlatformStateError::TooMuch`]: the saved output buffer is too large.
    pub fn restore(&mut self, state: &I8042State) -> Result<(), PlatformStateError> {
        if state.output.len() > MAX_OUTPUT {
            return Err(PlatformStateError::TooMuch {
                device: "keyboard controller",
                saved: state.output.len(),
                most: MAX_OUTPUT,
            });
        }
        self.configuration = state.configuration;
        self.expect = state.expect;
        self.output = state.output.iter().copied().collect();
        self.signal();
        Ok(())
    }

    /// Presses and releases Ctrl, Alt and Del. Returns false if the guest disabled the keyboard, or left too many bytes
    /// unread.
    pub fn ctrl_alt_del(&mut self) -> bool {
        if self.configuration & KEYBOARD_OFF != 0 {
            return false;
        }
        match self.configuration & TRANSLATE {
            0 => self.put(&CTRL_ALT_DEL),
            _ => self.put(&CTRL_ALT_DEL_TRANSLATED),
        }
    }

    /// Puts `bytes` into the output buffer. Returns false if they do not fit.
    fn put(&mut self, bytes: &[u8]) -> bool {
        let fits = self.output.len() + bytes.len() <= MAX_OUTPUT;
        if fits {
            self.output.extend(bytes);
        }
        self.signal();
        fits
    }

    fn answer(&mut self, bytes: &[u8]) {
        if !self.put(bytes) {
            log::debug!("keyboard controller: the guest does not read the output buffer");
        }
    }

    fn reset(&self) {
        self.metrics.reset_count.increment();
        (self.events)(GuestEvent::Reset);
    }

    fn signal(&self) {
        if self.configuration & INTERRUPT != 0
            && !self.output.is_empty()
            && let Err(e) = self.irq.write(1)
        {
            log::debug!("keyboard controller: cannot raise the interrupt: {e}");
            self.metrics.error_count.increment();
        }
    }

    fn command(&mut self, command: u8) {
        self.expect = Expect::Keyboard;
        match command {
            0x20 => self.answer(&[self.configuration]),
            0x60 => self.expect = Expect::Configuration,
            // Self-test passed; keyboard interface good; auxiliary interface absent.
            0xaa => self.answer(&[0x55]),
            0xab => self.answer(&[0x00]),
            0xa9 => self.answer(&[0xff]),
            0xad => self.configuration |= KEYBOARD_OFF,
            0xae => self.configuration &= !KEYBOARD_OFF,
            // The output port: not in reset, A20 on.
            0xd0 => self.answer(&[0x03]),
            0xd1 => self.expect = Expect::OutputPort,
            0xd2 => self.expect = Expect::Echo,
            0xd3 | 0xd4 => self.expect = Expect::Auxiliary,
            // Pulse lines of the output port: bit 0 clear pulses the reset line.
            0xf0..=0xff if command & 1 == 0 => self.reset(),
            _ => {}
        }
    }

    fn data(&mut self, value: u8) {
        match std::mem::replace(&mut self.expect, Expect::Keyboard) {
            Expect::Keyboard => self.keyboard(value),
            Expect::Configuration => self.configuration = value,
            Expect::OutputPort if value & 1 == 0 => self.reset(),
            Expect::Echo => self.answer(&[value]),
            Expect::Argument => self.answer(&[ACK]),
            Expect::OutputPort | Expect::Auxiliary => {}
        }
    }

    fn keyboard(&mut self, command: u8) {
        match command {
            // Set LEDs, scan code set, typematic rate: an argument follows.
            0xed | 0xf0 | 0xf3 => {
                self.expect = Expect::Argument;
                self.answer(&[ACK]);
            }
            0xee => self.answer(&[0xee]),
            // Identify: an MF2 keyboard, as a translating controller shows it.
            0xf2 => self.answer(&[ACK, 0xab, 0x41]),
            // Reset: the self-test passed.
            0xff => self.answer(&[ACK, 0xaa]),
            _ => self.answer(&[ACK]),
        }
    }
}

impl BusDevice for I8042 {
    fn read(&mut self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let [value] = data else {
            return self.metrics.missed_read_count.increment();
        };
        self.metrics.read_count.increment();
        match offset {
            DATA => {
                *value = self.output.pop_front().unwrap_or_default();
                self.signal();
            }
            COMMAND => {
                let full = if self.output.is_empty() {
                    0
                } else {
                    OUTPUT_FULL
                };
                *value = SYSTEM | UNLOCKED | full;
            }
            _ => self.metrics.missed_read_count.increment(),
        }
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.metrics.write_count.increment();
        match (offset, data) {
            (DATA, [value]) => self.data(*value),
            (COMMAND, [command]) => self.command(*command),
            _ => self.metrics.missed_write_count.increment(),
        }
    }
}

#[cfg(test)]
#[path = "i8042_test.rs"]
mod i8042_test;
