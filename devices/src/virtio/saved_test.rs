//! Every device after save and restore, and with saved states that are made up.

use super::device::VirtioDevice;
use super::state::{DeviceState, SavedQueue, Selectors, StateError, VirtioState};
use super::subjects::{Case, SUBJECTS, Subject, through_json};
use crate::block::backing::Backing;
use crate::block::{Block, BlockOptions};
use crate::lock;
use crate::testing::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::Cell;
use std::io::Write as _;
use std::time::{Duration, Instant};
use vm_memory::{Bytes as _, GuestAddress};

const VERSION_1: u64 = 1 << 32;
const VRING: u32 = 1;
const CONFIG: u32 = 2;

fn state_of(case: &Case) -> VirtioState {
    case.pause();
    through_json(&lock(&case.guest.transport).save())
}

/// Returns a device in use that has served a request.
fn used(subject: &'static Subject) -> (Case, Vec<Ring>) {
    let case = Case::new(subject);
    let mut rings = case.start();
    case.request(&mut rings);
    case.guest.settle();
    (case, rings)
}

#[test]
fn a_pending_interrupt_is_raised_on_resume() {
    for subject in &SUBJECTS {
        let (case, _) = used(subject);
        let mut state = state_of(&case);
        assert_eq!(state.interrupts, VRING);
        let again = case.restored(&state);
        assert!(!again.guest.interrupted(), "the machine is not there yet");
        again.resume();
        assert!(again.guest.interrupted());
        assert_eq!(again.guest.read(0x60), VRING);
        again.pause();
        again.resume();
        assert!(!again.guest.interrupted(), "once");
        state.interrupts = 0;
        let again = case.restored(&state);
        again.resume();
        again.guest.settle();
        assert!(!again.guest.interrupted(), "there was none");
    }
}

#[test]
fn a_changed_configuration_is_signalled_with_a_new_generation() {
    for subject in &SUBJECTS {
        let (case, mut rings) = used(subject);
        let mut state = state_of(&case);
        (state.interrupts, state.config_generation) = (0, 7);
        let same = case.restored(&state);
        same.resume();
        assert_eq!((same.guest.read(0x60), same.guest.read(0xfc)), (0, 7));
        same.pause();
        // As from a version that did not save the configuration.
        let mut unknown = state.clone();
        unknown.config.clear();
        let again = case.restored(&unknown);
        again.resume();
        assert_eq!((again.guest.read(0x60), again.guest.read(0xfc)), (0, 7));
        again.pause();

        let Some(byte) = state.config.first_mut() else {
            continue;
        };
        *byte ^= 1;
        let other = case.restored(&state);
        other.resume();
        assert!(other.guest.interrupted(), "{}", subject.name);
        assert_eq!(
            (other.guest.read(0x60), other.guest.read(0xfc)),
            (CONFIG, 8)
        );
        other.request(&mut rings);
        other.pause();
        state.status = 0;
        let unused = case.restored(&state);
        unused.resume();
        assert_eq!((unused.guest.read(0x60), unused.guest.read(0xfc)), (0, 8));
    }
}

#[test]
fn a_change_unread_by_the_driver_keeps_its_generation() {
    let subject = SUBJECTS.iter().find(|s| s.id == 5).unwrap();
    let (case, _) = used(subject);
    let generation = case.guest.read(0xfc);
    let actual = [1, 0, 0, 0];
    assert!(case.guest.bus.write(WINDOW_BASE + 0x104, &actual));
    let state = state_of(&case);
    assert_eq!(state.config_generation, generation + 1);
    let again = case.restored(&state);
    again.resume();
    assert_eq!(again.guest.read(0xfc), generation + 1);
}

#[test]
fn an_invalid_state_is_refused_without_a_change() {
    for subject in &SUBJECTS {
        let (case, _) = used(subject);
        let good = state_of(&case);
        let fresh = Case::new(subject);
        let mut transport = lock(&fresh.guest.transport);
        let before = transport.save();
        let mut refused = |change: &dyn Fn(&mut VirtioState)| {
            let mut state = good.clone();
            change(&mut state);
            let error = transport.restore(&state).unwrap_err();
            assert_eq!(transport.save(), before, "no trace");
            error
        };
        for len in 0..good.device.bytes.len() {
            let error = refused(&|state| state.device.bytes.truncate(len));
            assert!(matches!(error, StateError::Unreadable(_)), "{error}");
        }
        for bytes in [&b"x"[..], b"[]", b"null", &[0xff; 100], &[b'['; 60_000]] {
            let error = refused(&|state| state.device.bytes = bytes.to_vec());
            assert!(matches!(error, StateError::Unreadable(_)), "{error}");
        }
        refused(&|state| state.device.bytes.push(b'x'));
        refused(&|state| state.device.bytes = vec![b' '; 1 << 20]);
        let error = refused(&|state| state.device.version = 2);
        let (saved, known) = (2, 1);
        assert_eq!(error, StateError::Version { saved, known });
        for status in [2, 4, 8, 12, 11 | 0x10, 0x100, u32::MAX] {
            let error = refused(&|state| state.status = status);
            assert_eq!(error, StateError::Status(status));
        }
        let error = refused(&|state| state.features = 0);
        assert_eq!(error, StateError::Status(15), "no VERSION_1");
        let error = refused(&|state| state.interrupts = 7);
        assert_eq!(error, StateError::Interrupts(4));
    }
}

fn limits(size: u64) -> resources::RateLimiter {
    let bucket = resources::TokenBucket {
        size,
        refill_time: 1_000_000,
        one_time_burst: Some(2),
    };
    resources::RateLimiter {
        bandwidth: None,
        ops: Some(bucket),
    }
}

/// A disk of `sectors` with a limit of 4 requests per thousand seconds and a burst of 2.
fn limited_disk(sectors: usize) -> (Box<dyn VirtioDevice>, tempfile::NamedTempFile) {
    let mut image = tempfile::NamedTempFile::new().unwrap();
    image.write_all(&vec![7; 512 * sectors]).unwrap();
    let options = BlockOptions {
        rate_limiter: limits(4),
        ..BlockOptions::default()
    };
    let backing = Backing::open(image.path(), false).unwrap();
    (Box::new(Block::new(backing, options)), image)
}

/// Makes `count` reads available. Returns the number of served ones.
fn read_sectors(guest: &FakeGuest, ring: &mut Ring, count: usize) -> usize {
    guest.mem.write_slice(&[0; 16], GuestAddress(DATA)).unwrap();
    for _ in 0..count {
        let buffers = [(DATA, 16, false), (DATA + 0x100, 513, true)];
        ring.add(&guest.mem, &buffers);
    }
    guest.kick(0);
    guest.settle();
    std::iter::from_fn(|| ring.take_used(&guest.mem)).count()
}

#[test]
fn a_restored_limiter_has_its_saved_levels() {
    let (device, _image) = limited_disk(8);
    let guest = FakeGuest::new(device);
    let mut rings = guest.start(VERSION_1, 16);
    assert_eq!(read_sectors(&guest, &mut rings[0], 5), 5);
    lock(&guest.transport).pause();
    let state = through_json(&lock(&guest.transport).save());

    let (device, _image) = limited_disk(8);
    let again = FakeGuest::with(device, guest.mem.clone(), TestLoop::shared());
    lock(&again.transport).restore(&state).unwrap();
    lock(&again.transport).resume();
    assert_eq!(read_sectors(&again, &mut rings[0], 5), 1, "the sixth");
    lock(&again.transport).pause();

    let mut wrong = state;
    let text = String::from_utf8(wrong.device.bytes).unwrap();
    let text = text.replace("\"tokens\":1", "\"tokens\":-9223372036854775808");
    wrong.device.bytes = text.into_bytes();
    let (device, _image) = limited_disk(8);
    let other = FakeGuest::new(device);
    assert_eq!(
        lock(&other.transport).restore(&wrong),
        Err(StateError::Value("rate limiter"))
    );
}

#[test]
fn a_changed_disk_size_is_signalled() {
    let (device, _image) = limited_disk(8);
    let guest = FakeGuest::new(device);
    guest.start(VERSION_1, 16);
    lock(&guest.transport).pause();
    let state = lock(&guest.transport).save();
    let (device, _image) = limited_disk(16);
    let again = FakeGuest::with(device, guest.mem.clone(), TestLoop::shared());
    lock(&again.transport).restore(&state).unwrap();
    lock(&again.transport).resume();
    assert!(again.interrupted());
    assert_eq!((again.read(0x60), again.read(0x100)), (CONFIG, 16));
}

/// Device-specific state: valid with changes, or arbitrary.
fn device_state(good: DeviceState) -> impl Strategy<Value = DeviceState> {
    let (version, bytes) = (good.version, good.bytes);
    let (good, len) = (bytes.clone(), bytes.len());
    let changed = vec((0..len, any::<u8>()), 0..4).prop_map(move |changes| {
        let mut bytes = bytes.clone();
        changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
        bytes
    });
    let bytes = prop_oneof![6 => Just(good), 6 => changed, 1 => vec(any::<u8>(), 0..64)];
    let version = prop_oneof![9 => Just(version), 1 => any::<u32>()];
    (version, bytes).prop_map(|(version, bytes)| DeviceState { version, bytes })
}

fn queue() -> impl Strategy<Value = SavedQueue> {
    let at = || {
        prop_oneof![
            6 => (1_u64..8).prop_map(|n| n * 0x1000),
            1 => 0..MEM as u64 + 64,
            1 => any::<u64>(),
        ]
    };
    let size = prop_oneof![9 => (0_u32..9).prop_map(|n| 1_u16 << n), 1 => any::<u16>()];
    let position = || prop_oneof![4 => 0_u16..2, 1 => any::<u16>()];
    (
        size,
        any::<bool>(),
        position(),
        position(),
        at(),
        at(),
        at(),
    )
        .prop_map(
            |(size, ready, next_avail, next_used, desc_table, avail_ring, used_ring)| SavedQueue {
                size,
                ready,
                next_avail,
                next_used,
                desc_table,
                avail_ring,
                used_ring,
            },
        )
}

/// `good` with arbitrary changes.
fn hostile(good: VirtioState) -> impl Strategy<Value = VirtioState> {
    let other = proptest::sample::select(vec![11, 3, 0, 79, 143, 8, u32::MAX]);
    let status = prop_oneof![4 => Just(15), 1 => other];
    let features = prop_oneof![
        6 => Just(good.features),
        2 => any::<u64>().prop_map({
            let offered = good.features;
            move |some| offered & some | VERSION_1
        }),
        1 => any::<u64>(),
    ];
    let count = good.queues.len();
    let queues = prop_oneof![
        6 => vec(queue(), count),
        1 => vec(queue(), 0..40),
        6 => Just(good.queues.clone()),
    ];
    let select = (any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(d, f, queue)| Selectors {
        device_features: d,
        driver_features: f,
        queue,
    });
    let config = prop_oneof![Just(good.config.clone()), vec(any::<u8>(), 0..100)];
    let rest = (0_u32..4, select, any::<u32>(), config);
    let state = (status, features, queues, device_state(good.device), rest);
    state.prop_map(
        |(status, features, queues, device, (interrupts, select, generation, config))| {
            VirtioState {
                status,
                features,
                interrupts,
                select,
                queues,
                config_generation: generation,
                config,
                device,
            }
        },
    )
}

#[test]
fn any_saved_state_is_survived() {
    for subject in &SUBJECTS {
        let event_loop = TestLoop::spawn();
        let good = state_of(&used(subject).0);
        let [cases, accepted, ran] = [0_u32; 3].map(Cell::new);
        let count = |of: &Cell<u32>| of.set(of.get() + 1);
        let memory_bytes = vec(prop_oneof![9 => Just(0_u8), 1 => 1_u8..4], 0x180);
        let run = |(state, bytes): (VirtioState, Vec<u8>)| {
            count(&cases);
            let case = Case::with(subject, memory(), event_loop.clone());
            let mem = &case.guest.mem;
            mem.write_slice(&bytes.repeat(96), GuestAddress(0)).unwrap();
            let loaded = lock(&case.guest.transport).restore(&state);
            if loaded.is_err() {
                return Ok(());
            }
            count(&accepted);
            case.resume();
            case.stimulate();
            (0..4).for_each(|queue| case.guest.kick(queue));
            case.guest.settle();
            assert!(event_loop.is_alive(), "the loop died");
            ran.set(ran.get() + u32::from(case.guest.read(0x70) == 15));
            // The resulting state can be saved and loaded again.
            case.restored(&state_of(&case));
            case.recovers();
            Ok(())
        };
        if let Err(e) = properties().run(&(hostile(good), memory_bytes), run) {
            panic!("{}: {e}", subject.name);
        }
        let (cases, accepted, ran) = (cases.get(), accepted.get(), ran.get());
        println!(
            "{}: {accepted} accepted, {ran} ran of {cases}",
            subject.name
        );
        assert!(accepted > cases / 10 && ran > 0, "these cases try little");
    }
}

#[test]
fn saved_states_are_small() {
    for subject in &SUBJECTS {
        let (case, _) = used(subject);
        let start = Instant::now();
        let state = state_of(&case);
        assert!(start.elapsed() < Duration::from_secs(1));
        let len = state.device.bytes.len();
        assert!(len < 600, "{}: {len} bytes", subject.name);
    }
}
