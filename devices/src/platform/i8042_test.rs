use super::*;
use crate::testing::{RecordedEvents, properties, recorded_events};
use proptest::collection::vec;
use proptest::prelude::*;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

fn controller() -> (I8042, EventFd, RecordedEvents) {
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let (sink, events) = recorded_events();
    (I8042::new(irq.try_clone().unwrap(), sink), irq, events)
}

fn read(device: &mut I8042, offset: u64) -> u8 {
    let mut value = [0];
    device.read(offset, &mut value);
    value[0]
}

/// Empties the output buffer.
fn output(device: &mut I8042) -> Vec<u8> {
    let mut bytes = Vec::new();
    while read(device, COMMAND) & OUTPUT_FULL != 0 {
        bytes.push(read(device, DATA));
    }
    bytes
}

#[test]
fn the_probe_of_a_kernel_is_answered() {
    let (mut device, _irq, events) = controller();
    assert!(output(&mut device).is_empty(), "nothing to flush");
    for (command, answer) in [(0xaa, 0x55), (0xab, 0x00), (0xa9, 0xff), (0xd0, 0x03)] {
        device.write(COMMAND, &[command]);
        assert_eq!(output(&mut device), [answer], "command {command:#x}");
    }
    device.write(COMMAND, &[0x20]);
    assert_eq!(output(&mut device), [INTERRUPT | TRANSLATE]);
    device.write(COMMAND, &[0x60]);
    device.write(DATA, &[TRANSLATE]);
    device.write(COMMAND, &[0xad]);
    device.write(COMMAND, &[0x20]);
    assert_eq!(output(&mut device), [TRANSLATE | KEYBOARD_OFF]);
    device.write(COMMAND, &[0xae]);
    device.write(COMMAND, &[0x20]);
    assert_eq!(output(&mut device), [TRANSLATE]);
    // A kernel probes for a mouse by this loop-back; no answer comes.
    device.write(COMMAND, &[0xd3]);
    device.write(DATA, &[0x5a]);
    assert!(output(&mut device).is_empty());
    device.write(COMMAND, &[0xd2]);
    device.write(DATA, &[0x5a]);
    assert_eq!(output(&mut device), [0x5a]);
    assert!(events.take().is_empty());
}

#[test]
fn the_keyboard_identifies_itself() {
    let (mut device, _irq, _events) = controller();
    for (bytes, answer) in [
        (&[0xff][..], &[0xfa, 0xaa][..]),
        (&[0xf2], &[0xfa, 0xab, 0x41]),
        (&[0xed, 0x07], &[0xfa, 0xfa]),
        (&[0xf0, 0xff], &[0xfa, 0xfa]),
        (&[0xf4], &[0xfa]),
        (&[0xee], &[0xee]),
    ] {
        bytes.iter().for_each(|byte| device.write(DATA, &[*byte]));
        assert_eq!(output(&mut device), answer, "{bytes:x?}");
    }
    // A command instead of an argument cancels the argument.
    device.write(DATA, &[0xed]);
    device.write(COMMAND, &[0xae]);
    device.write(DATA, &[0xf2]);
    assert_eq!(output(&mut device), [0xfa, 0xfa, 0xab, 0x41]);
}

#[test]
fn every_way_to_reset_is_reported() {
    let (mut device, _irq, events) = controller();
    device.write(COMMAND, &[0xfe]);
    assert_eq!(events.take(), [GuestEvent::Reset]);
    device.write(COMMAND, &[0xd1]);
    device.write(DATA, &[0x02]);
    assert_eq!(events.take(), [GuestEvent::Reset]);
    device.write(COMMAND, &[0xd1]);
    device.write(DATA, &[0x03]);
    device.write(COMMAND, &[0xff]);
    device.write(DATA, &[0xfe]);
    device.write(COMMAND, &[0xfe, 0xfe]);
    assert!(events.take().is_empty());
}

#[test]
fn interrupts_follow_the_output_buffer_and_the_enable_bit() {
    let (mut device, irq, _events) = controller();
    device.write(DATA, &[0xf2]);
    for _ in 0..3 {
        assert!(irq.read().is_ok(), "a byte waits");
        read(&mut device, DATA);
    }
    assert!(irq.read().is_err());
    read(&mut device, DATA);
    assert!(irq.read().is_err(), "nothing waits");
    device.write(COMMAND, &[0x60]);
    device.write(DATA, &[0]);
    device.write(DATA, &[0xff]);
    assert!(irq.read().is_err(), "not wanted");
    assert_eq!(output(&mut device), [0xfa, 0xaa]);
}

#[test]
fn a_controller_is_restored_in_the_middle_of_a_command() {
    let (mut first, _irq, _events) = controller();
    first.write(COMMAND, &[0x60]);
    first.write(DATA, &[INTERRUPT]);
    first.ctrl_alt_del();
    read(&mut first, DATA);
    first.write(COMMAND, &[0xd2]);
    let state = serde_json::to_string(&first.save()).unwrap();
    let (mut again, irq, _events) = controller();
    again
        .restore(&serde_json::from_str(&state).unwrap())
        .unwrap();
    assert!(irq.read().is_ok(), "something waits");
    again.write(DATA, &[0x5a]);
    let expected = [&CTRL_ALT_DEL[1..], &[0x5a]].concat();
    assert_eq!(output(&mut again), expected);
}

#[test]
fn any_saved_state_is_loaded_or_refused_without_a_panic() {
    let expects = [
        Expect::Keyboard,
        Expect::Configuration,
        Expect::OutputPort,
        Expect::Echo,
        Expect::Auxiliary,
        Expect::Argument,
    ];
    let expect = proptest::sample::select(expects.to_vec());
    let state = (any::<u8>(), expect, vec(any::<u8>(), 0..20)).prop_map(
        |(configuration, expect, output)| I8042State {
            configuration,
            expect,
            output,
        },
    );
    let access = (0..LEN, proptest::option::of(any::<u8>()));
    let run = |(state, accesses): (I8042State, Vec<(u64, Option<u8>)>)| {
        let (mut device, _irq, _events) = controller();
        let fresh = device.save();
        match device.restore(&state) {
            Ok(()) => assert_eq!(device.save(), state),
            Err(_) => assert_eq!(device.save(), fresh),
        }
        assert_eq!(device.save() == state, state.output.len() <= MAX_OUTPUT);
        for (offset, value) in accesses {
            match value {
                Some(value) => device.write(offset, &[value]),
                None => device.read(offset, &mut [0]),
            }
            assert!(device.output.len() <= MAX_OUTPUT);
        }
        output(&mut device);
        device.write(COMMAND, &[0xaa]);
        assert_eq!(output(&mut device), [0x55]);
        Ok(())
    };
    let cases = (state, vec(access, 0..30));
    properties().run(&cases, run).unwrap();
}

#[test]
fn any_order_of_accesses_keeps_the_buffer_bounded_and_the_controller_usable() {
    let byte = prop_oneof![
        any::<u8>(),
        proptest::sample::select(vec![0x20, 0x60, 0xd1, 0xd2, 0xd3, 0xd4, 0xed, 0xf2, 0xff]),
    ];
    let access = (0..LEN + 2, 0_usize..=8, proptest::option::of(byte));
    let run = |accesses: Vec<(u64, usize, Option<u8>)>| {
        let (mut device, _irq, events) = controller();
        for (offset, width, value) in accesses {
            match value {
                Some(value) => device.write(offset, &vec![value; width]),
                None => device.read(offset, &mut vec![0xff; width]),
            }
            assert!(device.output.len() <= MAX_OUTPUT);
            assert!(events.take().len() <= 1);
        }
        output(&mut device);
        device.write(COMMAND, &[0xaa]);
        assert_eq!(output(&mut device), [0x55]);
        Ok(())
    };
    properties().run(&vec(access, 1..100), run).unwrap();
}

#[test]
fn ctrl_alt_del_follows_the_translation_setting() {
    for (configuration, expected) in [
        (0x41, &CTRL_ALT_DEL_TRANSLATED[..]),
        (0x01, &CTRL_ALT_DEL[..]),
    ] {
        let (sink, _) = recorded_events();
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let mut keyboard = I8042::new(irq.try_clone().unwrap(), sink);
        keyboard.write(COMMAND, &[0x60]);
        keyboard.write(DATA, &[configuration]);
        assert!(keyboard.ctrl_alt_del());
        assert_eq!(irq.read().unwrap(), 1);
        let mut keys = Vec::new();
        loop {
            let mut byte = [0];
            keyboard.read(COMMAND, &mut byte);
            if byte[0] & OUTPUT_FULL == 0 {
                break;
            }
            keyboard.read(DATA, &mut byte);
            keys.push(byte[0]);
        }
        assert_eq!(keys, expected);
    }
}

#[test]
fn ctrl_alt_del_fails_on_a_disabled_or_unread_keyboard() {
    let (sink, _) = recorded_events();
    let mut keyboard = I8042::new(EventFd::new(EFD_NONBLOCK).unwrap(), sink);
    assert!(keyboard.ctrl_alt_del() && keyboard.ctrl_alt_del());
    assert!(!keyboard.ctrl_alt_del(), "nobody reads");
    keyboard.write(COMMAND, &[0xad]);
    assert!(!keyboard.ctrl_alt_del(), "switched off");
    assert_eq!(keyboard.metrics().write_count.get(), 1);
}
