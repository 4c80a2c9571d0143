//! Power-off, reset and the payload's exit status: four byte-wide ports.
//!
//! The first three are the registers that a hardware-reduced FADT names (ACPI 6.4, 4.8.3.7 and 4.8.3.6). The kernel
//! writes them on `poweroff` and `reboot`. The exit port is Bantam's own: a payload writes a status to it, and the
//! monitor ends with that status.

use crate::bus::BusDevice;
use crate::platform::guest_event::{EventSink, GuestEvent};

/// Offset of the sleep control register.
pub const SLEEP_CONTROL: u64 = 0;
/// Offset of the sleep status register.
pub const SLEEP_STATUS: u64 = 1;
/// Offset of the reset register.
pub const RESET: u64 = 2;
/// Bytes of the block.
pub const LEN: u64 = 4;

/// SLP_EN of the sleep control register: enter the state that SLP_TYP names.
const SLEEP_ENABLE: u8 = 1 << 5;

/// The sleep control, sleep status and reset registers.
pub struct PowerControl {
    events: EventSink,
}

impl PowerControl {
    /// Creates the registers, which report to `events`.
    pub fn new(events: EventSink) -> Self {
        Self { events }
    }
}

impl BusDevice for PowerControl {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        // WAK_STS clear: the machine never slept.
        data.fill(0);
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        match (offset, data) {
            // The DSDT declares S5 only, so SLP_TYP does not matter.
            (SLEEP_CONTROL, [value]) if value & SLEEP_ENABLE != 0 => {
                (self.events)(GuestEvent::PowerOff);
            }
            (RESET, [_]) => (self.events)(GuestEvent::Reset),
            _ => {}
        }
    }
}

/// Statuses that a payload may choose. The monitor uses 0 to 2 itself, and 128 and above for signals and failures of
/// the machine.
pub const EXIT_STATUSES: std::ops::RangeInclusive<u8> = 3..=127;

/// The exit port. Writing a byte of [`EXIT_STATUSES`] ends the guest with that status; other writes are ignored.
pub struct ExitPort {
    events: EventSink,
}

impl ExitPort {
    /// Creates the port, which reports to `events`.
    pub fn new(events: EventSink) -> Self {
        Self { events }
    }
}

impl BusDevice for ExitPort {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(0);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        match data {
            [status] if EXIT_STATUSES.contains(status) => {
                (self.events)(GuestEvent::Exit(*status));
            }
            _ => log::debug!("exit port: ignored write of {data:?}"),
        }
    }
}

#[cfg(test)]
#[path = "power_test.rs"]
mod power_test;
