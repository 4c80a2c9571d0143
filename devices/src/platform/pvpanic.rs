//! The pvpanic device, through which the guest's kernel reports a panic. The DSDT describes it as QEMU0001; QEMU's
//! docs/specs/pvpanic specifies it.

use crate::bus::BusDevice;
use crate::platform::guest_event::{EventSink, GuestEvent};

/// Event: the kernel panicked and does not recover.
const PANICKED: u8 = 1 << 0;
/// Event: the kernel panicked and starts its crash kernel.
const CRASH_LOADED: u8 = 1 << 1;

/// One byte-wide port. A read returns the supported events, a write reports one.
pub struct PvPanic {
    events: EventSink,
}

impl PvPanic {
    /// Creates the device, which reports to `events`.
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
    fn a_panic_is_reported_and_a_crash_kernel_may_run() {
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
