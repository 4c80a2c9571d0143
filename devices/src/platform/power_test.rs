use super::*;
use crate::testing::recorded_events;

#[test]
fn power_off_and_reset_are_reported_once_per_write() {
    let (sink, events) = recorded_events();
    let mut power = PowerControl::new(sink);
    power.write(SLEEP_CONTROL, &[5 << 2]);
    assert!(events.take().is_empty(), "without SLP_EN nothing happens");
    power.write(SLEEP_CONTROL, &[SLEEP_ENABLE | 5 << 2]);
    power.write(RESET, &[1]);
    power.write(SLEEP_STATUS, &[0x80]);
    assert_eq!(events.take(), [GuestEvent::PowerOff, GuestEvent::Reset]);
}

#[test]
fn only_statuses_from_3_to_127_end_the_guest() {
    let (sink, events) = recorded_events();
    let mut port = ExitPort::new(sink);
    for status in [0, 2, 128, 148, 255] {
        port.write(0, &[status]);
    }
    port.write(0, &[3, 0]);
    assert!(events.take().is_empty());
    port.write(0, &[3]);
    port.write(0, &[127]);
    assert_eq!(events.take(), [GuestEvent::Exit(3), GuestEvent::Exit(127)]);
}
