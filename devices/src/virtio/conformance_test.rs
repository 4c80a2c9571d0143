//! Conformance suite: behaviour that every virtio device shares, checked on each of them through its registers.

use super::state::StateError;
use super::subjects::{Case, SUBJECTS, bytes, through_json};
use crate::lock;
use crate::testing::*;
use vm_memory::{Bytes, GuestAddress};

const VERSION_1: u64 = 1 << 32;
const EVENT_IDX: u64 = 1 << 29;
const NEEDS_RESET: u32 = 0x40;

fn for_each(check: impl Fn(&Case)) {
    for subject in &SUBJECTS {
        println!("{}", subject.name);
        check(&Case::new(subject));
    }
}

#[test]
fn registers_identify_the_device() {
    for_each(|case| {
        let guest = &case.guest;
        assert_eq!(guest.read(0x00), 0x7472_6976);
        assert_eq!(guest.read(0x04), 2);
        assert_eq!(guest.read(0x08), case.subject.id);
        assert_ne!(guest.read(0x0c), 0);
        for queue in 0..case.subject.queues {
            guest.write(0x30, queue);
            assert!(guest.read(0x34).is_power_of_two());
        }
        for queue in [case.subject.queues, 64, u32::MAX] {
            guest.write(0x30, queue);
            assert_eq!(guest.read(0x34), 0, "queue {queue}");
            assert_eq!(guest.read(0x44), 0, "queue {queue}");
        }
        for shared_memory in [0xb0, 0xb4, 0xb8, 0xbc] {
            assert_eq!(guest.read(shared_memory), u32::MAX);
        }
        for width in [1, 2, 3, 8] {
            let mut data = vec![0xff; width];
            assert!(guest.bus.read(WINDOW_BASE, &mut data));
            assert_eq!(data, vec![0; width], "registers are 32 bits wide");
        }
    });
}

#[test]
fn features_are_negotiated_or_refused() {
    for_each(|case| {
        let guest = &case.guest;
        let offered = guest.offered();
        assert_ne!(offered & VERSION_1, 0);
        guest.write(0x14, 2);
        assert_eq!(guest.read(0x10), 0);
        assert_eq!(guest.negotiate(offered & !VERSION_1), 3, "legacy");
        for bit in (0..64).filter(|bit| offered & 1 << bit == 0) {
            assert_eq!(guest.negotiate(offered | 1 << bit), 3, "feature {bit}");
        }
        // Refused features can be corrected without a reset.
        for (select, half) in [(1, 1), (0, 0), (2, u32::MAX)] {
            guest.write(0x24, select);
            guest.write(0x20, half);
        }
        guest.write(0x70, 11);
        assert_eq!(guest.read(0x70), 11);
        guest.write(0x24, 1);
        guest.write(0x20, u32::MAX);
        let features = lock(&guest.transport).save().features;
        assert_eq!(features, VERSION_1, "fixed once accepted");
    });
}

#[test]
fn status_bits_are_only_added() {
    for_each(|case| {
        let guest = &case.guest;
        for (written, read) in [
            (2, 0),
            (8, 0),
            (4, 0),
            (0x40, 0),
            (1, 1),
            (1 | 8, 1),
            (1 | 4, 1),
            (3, 3),
            (1, 3),
            (3 | 4, 3),
            (3 | 8, 3), // no VERSION_1
            (3 | 0x80, 0x83),
            (3 | 0x40, 0x83),
            (0, 0),
        ] {
            guest.write(0x70, written);
            assert_eq!(guest.read(0x70), read, "after {written:#x}");
        }
        case.request(&mut case.start());
        guest.write(0x70, 11);
        assert_eq!(guest.read(0x70), 15);
        assert_eq!(guest.negotiate(VERSION_1), 11, "a reset starts anew");
    });
}

#[test]
fn queues_are_set_up_only_in_the_right_state() {
    for_each(|case| {
        let guest = &case.guest;
        let ring = Ring::new(0, 16);
        guest.write(0x70, 0);
        guest.enable(&ring);
        assert_eq!(guest.read(0x44), 0, "before the features");
        assert_eq!(guest.negotiate(guest.offered()), 11);
        guest.write(0x30, case.subject.queues);
        guest.write(0x44, 1);
        assert_eq!(guest.read(0x44), 0, "an absent queue");
        guest.write(0x30, 0);
        let saved = || lock(&guest.transport).save().queues[0];
        let max = guest.read(0x34);
        for size in [0, 3, max + 1, 2 * max, 0x1_0000 + 16, u32::MAX] {
            guest.write(0x38, size);
            assert_eq!(u32::from(saved().size), max, "size {size}");
        }
        guest.enable(&ring);
        assert_eq!(guest.read(0x44), 1);
        let before = saved();
        guest.enable(&Ring::new(1, 8));
        guest.write(0x30, 0);
        guest.write(0x80, 0x7000);
        guest.write(0x38, 8);
        assert_eq!(saved(), before, "an enabled queue is fixed");
        guest.write(0x44, 0);
        assert_eq!(guest.read(0x44), 0);
        guest.write(0x38, 8);
        assert_eq!(saved().size, 8, "a disabled one is not");
        case.request(&mut case.start());
        guest.write(0x30, 0);
        guest.write(0x44, 0);
        assert_eq!(guest.read(0x44), 1, "a device in use keeps its queues");
    });
}

#[test]
fn unused_queues_may_stay_disabled() {
    for_each(|case| {
        let guest = &case.guest;
        guest.negotiate(guest.offered());
        assert_eq!(guest.driver_ok(), 15);
        for queue in 0..case.subject.queues + 2 {
            guest.kick(queue);
        }
        guest.settle();
        assert_eq!(guest.read(0x70), 15, "no queue");

        guest.negotiate(guest.offered());
        let mut rings = [0, 1, 2].map(|queue| Ring::new(queue, 16));
        guest.enable(&rings[case.subject.queue]);
        assert_eq!(guest.driver_ok(), 15);
        for queue in 0..3 {
            guest.kick(queue);
        }
        guest.settle();
        case.request(&mut rings);
        assert_eq!(guest.read(0x70), 15, "one queue");
    });
}

#[test]
fn interrupts_are_reported_and_acknowledged() {
    for_each(|case| {
        let guest = &case.guest;
        let mut rings = case.start();
        guest.settle();
        assert!(!guest.interrupted());
        case.request(&mut rings);
        guest.settle();
        assert!(guest.interrupted());
        assert_eq!(guest.read(0x60), 1);
        guest.write(0x64, 2);
        assert_eq!(guest.read(0x60), 1);
        guest.write(0x64, 1);
        assert_eq!(guest.read(0x60), 0);
    });
}

#[test]
fn a_reset_device_starts_again_with_other_features() {
    for_each(|case| {
        let guest = &case.guest;
        for (features, size) in [
            (guest.offered(), 256),
            (VERSION_1, 4),
            (VERSION_1 | EVENT_IDX, 128),
        ] {
            let mut rings = guest.start(features | case.subject.needs, size);
            for _ in 0..20 {
                case.request(&mut rings);
            }
            guest.settle();
            guest.write(0x70, 0);
            assert_eq!((guest.read(0x70), guest.read(0x60)), (0, 0));
            guest.write(0x30, 0);
            assert_eq!(guest.read(0x44), 0);
        }
    });
}

#[test]
fn a_reset_with_requests_in_flight_stops_all_writes() {
    for_each(|case| {
        let guest = &case.guest;
        for round in 0..30 {
            let mut rings = case.start();
            for n in 0..4 {
                case.add(&mut rings, n);
            }
            case.kick();
            if round % 2 == 0 {
                std::thread::yield_now();
            }
            guest.write(0x70, 0);
            let after = bytes(&guest.mem, 0, MEM);
            case.kick();
            guest.settle();
            assert!(bytes(&guest.mem, 0, MEM) == after, "wrote after its reset");
            case.outside.empty();
        }
        case.request(&mut case.start());
    });
}

#[test]
fn configuration_is_read_in_any_width_anywhere() {
    for_each(|case| {
        let read = |offset: u64, len: usize| {
            let mut data = vec![0xee; len];
            let at = WINDOW_BASE + 0x100 + offset;
            assert!(case.guest.bus.read(at, &mut data));
            data
        };
        let window = 0x1000 - 0x100;
        let whole: Vec<u8> = (0..window).map(|at| read(at, 1)[0]).collect();
        assert!(whole[case.subject.config..].iter().all(|byte| *byte == 0));
        for (width, offset) in (1..=8_usize).flat_map(|w| (0..80).map(move |o| (w, o))) {
            let expected = &whole[offset..offset + width];
            assert_eq!(read(offset as u64, width), expected);
        }
        for width in 1..=8_usize {
            let last = window - width as u64;
            assert_eq!(read(last, width), vec![0; width]);
            for offset in 0..last {
                let at = WINDOW_BASE + 0x100 + offset;
                assert!(case.guest.bus.write(at, &vec![0xff; width]));
            }
        }
        let mut again: Vec<u8> = (0..window).map(|at| read(at, 1)[0]).collect();
        let writable = case.subject.writable.clone();
        again[writable.clone()].copy_from_slice(&whole[writable]);
        assert_eq!(again, whole, "nothing else is writable");
    });
}

type Break = (&'static str, fn(&Case, &mut Ring));

#[test]
fn a_broken_ring_requests_a_reset_that_repairs_it() {
    let breaks: [Break; 3] = [
        ("index", |case, ring| {
            ring.set_avail_index(&case.guest.mem, 1 + 17);
        }),
        ("index back", |case, ring| {
            ring.set_avail_index(&case.guest.mem, u16::MAX);
        }),
        ("head", |case, ring| ring.publish(&case.guest.mem, 16)),
    ];
    for_each(|case| {
        for (what, break_it) in breaks {
            let guest = &case.guest;
            let mut rings = case.start();
            case.request(&mut rings);
            guest.settle();
            guest.interrupted();
            guest.write(0x64, u32::MAX);
            break_it(case, &mut rings[case.subject.queue]);
            case.stimulate();
            case.kick();
            guest.settle();
            assert_eq!(guest.read(0x70), 15 | NEEDS_RESET, "{what}");
            assert_eq!(guest.read(0x60) & 2, 2, "{what}: no interrupt cause");
            assert!(guest.interrupted(), "{what}: no interrupt");
            case.kick();
            guest.settle();
            case.recovers();
        }
    });
}

#[test]
fn an_invalid_queue_requests_a_reset() {
    let bad: [fn(&mut Ring); 6] = [
        |ring| ring.desc = MEM as u64,
        |ring| ring.desc = 0x1008,
        |ring| ring.avail = MEM as u64 - 8,
        |ring| ring.avail = 0x3001,
        |ring| ring.used = WINDOW_BASE,
        |ring| ring.used = u64::MAX - 3,
    ];
    for_each(|case| {
        for spoil in bad {
            let guest = &case.guest;
            guest.negotiate(guest.offered());
            let mut ring = Ring::new(0, 16);
            spoil(&mut ring);
            guest.enable(&ring);
            assert_eq!(guest.driver_ok(), 15 | NEEDS_RESET, "{ring:?}");
            assert_eq!(guest.read(0x60), 2);
            case.recovers();
        }
    });
}

#[test]
fn a_device_is_restored_in_the_middle_of_its_ring() {
    for_each(|case| {
        let mut rings = case.start();
        for _ in 0..5 {
            case.request(&mut rings);
        }
        case.pause();
        case.add(&mut rings, 0);
        case.add(&mut rings, 1);
        case.kick();
        case.guest.write(0x30, 1);
        case.guest.write(0x14, 1);
        let state = through_json(&lock(&case.guest.transport).save());
        assert_eq!(state.interrupts, 1);

        let again = case.restored(&state);
        assert_eq!(lock(&again.guest.transport).save(), state);
        assert_eq!(
            again.guest.read(0x10),
            1,
            "the selected half of the features"
        );
        again.stimulate();
        again.resume();
        again.answered(&mut rings, 0);
        again.stimulate();
        again.answered(&mut rings, 1);
        again.request(&mut rings);
        assert_eq!(again.guest.read(0x70), 15);
    });
}

#[test]
fn ring_indexes_wrap_around() {
    for features in [VERSION_1, VERSION_1 | EVENT_IDX] {
        for_each(|case| {
            let mut rings = case.guest.start(features | case.subject.needs, 16);
            case.pause();
            let mut state = lock(&case.guest.transport).save();
            for (queue, ring) in state.queues.iter_mut().zip(&mut rings) {
                (queue.next_avail, queue.next_used) = (0xfff0, 0xfff0);
                ring.seek(&case.guest.mem, 0xfff0);
            }
            let again = case.restored(&state);
            again.resume();
            for _ in 0..40 {
                again.request(&mut rings);
            }
            assert_eq!(again.guest.read(0x70), 15);
        });
    }
}

#[test]
fn a_broken_or_unused_device_is_restored_in_its_state() {
    for_each(|case| {
        let state = through_json(&lock(&case.guest.transport).save());
        let again = case.restored(&state);
        again.resume();
        assert_eq!(again.guest.read(0x70), 0);
        again.request(&mut again.start());

        let mut rings = case.start();
        rings[case.subject.queue].publish(&case.guest.mem, 99);
        case.stimulate();
        case.kick();
        case.guest.settle();
        case.pause();
        let again = case.restored(&lock(&case.guest.transport).save());
        again.resume();
        again.kick();
        again.guest.settle();
        assert_eq!(again.guest.read(0x70), 15 | NEEDS_RESET);
        again.recovers();
    });
}

#[test]
fn a_state_that_does_not_fit_is_refused() {
    for_each(|case| {
        let mut transport = lock(&case.guest.transport);
        let good = transport.save();
        let mut state = good.clone();
        state.queues.pop();
        assert!(matches!(
            transport.restore(&state),
            Err(StateError::QueueCount { .. })
        ));
        for size in [0, 3, 0x8000] {
            let mut state = good.clone();
            state.queues[0].size = size;
            assert_eq!(transport.restore(&state), Err(StateError::Queue(0)));
        }
        let mut state = good.clone();
        state.features = 1 << 60;
        assert_eq!(
            transport.restore(&state),
            Err(StateError::Features(1 << 60))
        );
        assert_eq!(transport.save(), good, "and leaves no trace");

        // Well-formed, but outside guest memory, as if the driver had chosen so.
        let mut state = good;
        (state.status, state.features) = (15, VERSION_1);
        state.queues[0].ready = true;
        state.queues[0].desc_table = 1 << 40;
        transport.restore(&state).unwrap();
        transport.resume();
        assert_eq!(transport.save().status, 15 | NEEDS_RESET);
    });
}

#[test]
fn kicks_during_a_pause_are_not_lost() {
    for_each(|case| {
        let mut rings = case.start();
        for _ in 0..30 {
            case.add(&mut rings, 0);
            case.stimulate();
            case.kick();
            case.pause();
            case.add(&mut rings, 1);
            case.stimulate();
            case.kick();
            case.pause();
            case.resume();
            case.resume();
            case.answered(&mut rings, 0);
            case.answered(&mut rings, 1);
        }
        assert_eq!(case.guest.read(0x70), 15);
    });
}

#[test]
fn pages_written_by_a_device_are_marked_dirty() {
    for tracked in [true, false] {
        for subject in &SUBJECTS {
            let mem = memory_of(&[(0, MEM)], tracked);
            let case = Case::with(subject, mem, TestLoop::shared());
            let mem = &case.guest.mem;
            let mut rings = case.start();
            case.guest.settle();
            case.add(&mut rings, 0);
            let before = bytes(mem, 0, MEM);
            take_dirty(mem);
            case.stimulate();
            case.kick();
            case.answered(&mut rings, 0);
            case.guest.settle();
            let after = bytes(mem, 0, MEM);
            let dirty = take_dirty(mem);
            let pages = (0_u64..).zip(before.chunks(4096).zip(after.chunks(4096)));
            let changed: Vec<u64> = pages
                .filter_map(|(page, (before, after))| (before != after).then_some(page))
                .collect();
            println!("{}: changed {changed:?}, noted {dirty:?}", subject.name);
            assert!(!changed.is_empty());
            let noted = changed.iter().all(|page| dirty.contains(page));
            assert_eq!(noted, tracked);
            // The used ring, and the pages of the request.
            assert!(dirty.len() <= 4, "no more than was written");
        }
    }
}

#[test]
fn a_device_with_nothing_to_do_does_not_wake_the_loop() {
    for subject in &SUBJECTS {
        let event_loop = TestLoop::spawn();
        let case = Case::with(subject, memory(), event_loop.clone());
        let mut rings = case.start();
        case.request(&mut rings);
        // A packet without a buffer stays in the tap.
        case.stimulate();
        assert!(event_loop.rests(), "{} runs", subject.name);
        case.pause();
        case.kick();
        case.stimulate();
        assert!(event_loop.rests(), "{} is paused", subject.name);
        case.resume();
        assert!(event_loop.rests(), "{} is resumed", subject.name);
        rings[subject.queue].publish(&case.guest.mem, 99);
        for queue in 0..subject.queues {
            case.guest.kick(queue);
        }
        case.guest.settle();
        assert_eq!(case.guest.read(0x70), 15 | NEEDS_RESET);
        for queue in 0..subject.queues {
            case.guest.kick(queue);
        }
        case.stimulate();
        assert!(event_loop.rests(), "{} is broken", subject.name);
        case.guest.write(0x70, 0);
        case.kick();
        case.stimulate();
        assert!(event_loop.rests(), "{} is reset", subject.name);
        drop(case);
        assert!(event_loop.rests(), "{} is gone", subject.name);
    }
}

#[test]
fn a_polling_driver_is_not_interrupted() {
    for_each(|case| {
        let guest = &case.guest;
        let mut rings = guest.start(VERSION_1 | case.subject.needs, 16);
        let avail = GuestAddress(rings[case.subject.queue].avail);
        for (flags, interrupted) in [(1_u16, false), (0, true), (1, false)] {
            guest.mem.write_obj(flags, avail).unwrap();
            case.request(&mut rings);
            guest.settle();
            assert_eq!(guest.interrupted(), interrupted, "flags {flags}");
            if !case.subject.receives {
                let used = GuestAddress(rings[case.subject.queue].used);
                assert_eq!(guest.mem.read_obj::<u16>(used).unwrap(), 0, "wants kicks");
            }
        }
    });
}

#[test]
fn the_event_index_selects_interrupts_and_kicks() {
    for_each(|case| {
        let guest = &case.guest;
        let mut rings = guest.start(VERSION_1 | EVENT_IDX | case.subject.needs, 16);
        let ring = rings[case.subject.queue].clone();
        let used_event = GuestAddress(ring.avail + 4 + 2 * 16);
        let avail_event = GuestAddress(ring.used + 4 + 8 * 16);
        guest.mem.write_obj(2_u16, used_event).unwrap();
        for (served, interrupted) in (1_u16..).zip([false, false, true, false, false]) {
            case.request(&mut rings);
            guest.settle();
            assert_eq!(guest.interrupted(), interrupted, "after {served}");
            // A device asks for a kick only if it has a packet and no buffer.
            let event: u16 = guest.mem.read_obj(avail_event).unwrap();
            if !case.subject.receives {
                assert_eq!(event, served, "wants to hear of the next");
            }
        }
    });
}

#[test]
fn descriptors_stay_bounded_under_fast_resets() {
    let event_loop = TestLoop::spawn();
    let case = Case::with(&SUBJECTS[4], memory(), event_loop.clone());
    let (go, wait) = std::sync::mpsc::channel::<()>();
    event_loop.post(move || assert!(wait.recv().is_err()));
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    let mut refused = 0;
    for _ in 0..500 {
        case.guest.negotiate(case.guest.offered());
        refused += u32::from(case.guest.driver_ok() & NEEDS_RESET != 0);
    }
    // Other tests of the process have descriptors, too.
    assert!(
        descriptors() < before + 500,
        "{} descriptors",
        descriptors()
    );
    assert!(refused > 0);
    drop(go);
    case.recovers();
}
