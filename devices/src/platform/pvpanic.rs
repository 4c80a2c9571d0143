//! The pvpanic device, through which a guest's kernel tells of its panic. Described in the DSDT as
//! QEMU0001; specified in QEMU's docs/specs/pvpanic.

use crate::bus::BusDevice;
use crate::platform::guest_event::{EventSink, GuestEvent};

/// The kernel panicked and will not help itself.
const PANICKED: u8 = 1 << 0;
/// The kernel panicked and starts its crash kernel.
const CRASH_LOADED: u8 = 1 << 1;

/// One byte-wide port: read for the events it knows, written to tell one.
pub struct PvPanic {
    events: EventSink,
}

impl PvPanic {
    /// Reports to `events`.
    pub fn new(events: EventSink) -> Self {
        Self { events }
    }
}

impl BusDevice for PvPanic {
    fn read(&mut self, _offset: u64, data: &mut [u8]) {
        data.fill(PANICKED | CRASH_LOADED);
    }

    fn write(&mut self, _offset: u64, data: &[u8]) {
        let [event] = data else { return };
        if event & PANICKED != 0 {
            (self.events)(GuestEvent::Panicked);
        } else if event & CRASH_LOADED != 0 {
            log::warn!("the guest's kernel panicked and starts its crash kernel");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::recorded_events;

    #[test]
    fn a_panic_is_told_and_a_crash_kernel_is_let_run() {
        let (sink, events) = recorded_events();
        let mut device = PvPanic::new(sink);
        let mut known = [0];
        device.read(0, &mut known);
        assert_eq!(known, [3]);
        device.write(0, &[CRASH_LOADED]);
        device.write(0, &[0]);
        device.write(0, &[1, 1]);
        assert!(events.take().is_empty());
        device.write(0, &[PANICKED]);
        assert_eq!(events.take(), [GuestEvent::Panicked]);
    }
}
