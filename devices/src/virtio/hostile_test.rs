//! Property tests of hostile guests on every device. Nothing panics (which would end the loop), the loop keeps turning,
//! memory that was not offered stays unchanged, and a reset device serves again.

use super::subjects::{Case, SECTORS, SUBJECTS, Subject, bytes};
use crate::testing::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// Indirect descriptor tables: four of a page each.
const TABLES: u64 = 0x1_0000;
/// Headers of block requests, 16 bytes each.
const HEADERS: u64 = 0x1_8000;
/// Memory that devices may write, besides the last page.
const OFFERED: std::ops::Range<u64> = DATA..0x6_0000;
const LAST_PAGE: u64 = MEM as u64 - 0x1000;
/// Memory that no device may write.
const CANARIES: [std::ops::Range<u64>; 2] = [0x2_0000..OFFERED.start, OFFERED.end..LAST_PAGE];
/// Fill byte of the canaries. As a descriptor, at any alignment, it names a writable buffer outside memory.
const CANARY: u8 = 0x5a;

type Descriptor = (u64, u32, u16, u16);

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// An action of the guest.
#[derive(Clone, Debug)]
enum Step {
    /// An access to the register window: offset, width, and the value to write.
    Access(u64, usize, Option<u64>),
    /// A write of a meaningful value to a register.
    Register(u32, u32),
    /// A descriptor of the queue under test.
    Descriptor(u16, Descriptor),
    /// A descriptor of an indirect table.
    Indirect(u64, u16, Descriptor),
    Publish(u16),
    AvailIndex(u16),
    /// The flags of the available ring and its used_event.
    Suppress(u16, u16),
    /// A write to any address of memory.
    Poke(u64, u64),
    Kick(u32),
    Stimulate,
    /// The action of a busy driver: the peer's part, and a kick of the right queue.
    Push,
    Pause,
    Resume,
    Settle,
    /// A reset and new start with some features and a queue size.
    Start(u64, u16),
}

fn register() -> impl Strategy<Value = u32> {
    let known = [
        0x00, 0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80, 0x84,
        0x90, 0x94, 0xa0, 0xa4, 0xac, 0xb0, 0xfc, 0x100, 0x108,
    ];
    proptest::sample::select(known.to_vec())
}

fn value() -> impl Strategy<Value = u32> {
    let telling = [
        0,
        1,
        2,
        3,
        4,
        8,
        11,
        15,
        16,
        0x40,
        0x7f,
        0x80,
        0x8f,
        256,
        0x1000,
        0x1001,
        0x2000,
        0x4000,
        0xf_fff0,
        0x10_0000,
        0xd000_0000,
        0xffff_fff0,
        u32::MAX,
    ];
    prop_oneof![4 => proptest::sample::select(telling.to_vec()), 1 => any::<u32>()]
}

/// Status values of a correct driver, frequent enough to complete the initialization.
fn status() -> impl Strategy<Value = Step> {
    proptest::sample::select(&[0, 1, 3, 11, 15][..]).prop_map(|s| Step::Register(0x70, s))
}

fn access() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![0_u64..0x200, 0_u64..0xff8];
    (offset, 1_usize..=8, any::<Option<u64>>()).prop_map(|(o, w, v)| Step::Access(o, w, v))
}

fn start() -> impl Strategy<Value = Step> {
    let sizes = [1, 2, 4, 16, 256];
    (any::<u64>(), proptest::sample::select(sizes.to_vec())).prop_map(|(f, n)| Step::Start(f, n))
}

fn doing() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => Just(Step::Push),
        3 => (0_u32..4).prop_map(Step::Kick),
        1 => any::<u32>().prop_map(Step::Kick),
        2 => Just(Step::Stimulate),
        2 => Just(Step::Pause),
        3 => Just(Step::Resume),
        6 => Just(Step::Settle),
    ]
}

fn len() -> impl Strategy<Value = u32> {
    let telling = [
        0,
        1,
        11,
        12,
        15,
        16,
        17,
        20,
        511,
        512,
        513,
        4096,
        0xffff_fe00,
        u32::MAX,
    ];
    prop_oneof![3 => proptest::sample::select(telling.to_vec()), 1 => any::<u32>()]
}

/// A descriptor that lets the device write outside [`CANARIES`] only.
fn honest_descriptor() -> impl Strategy<Value = Descriptor> {
    let offered = (OFFERED, len()).prop_map(|(at, len)| {
        let room = u32::try_from(OFFERED.end - at).unwrap();
        (at, len.min(room), WRITE)
    });
    let outside = (MEM as u64..=u64::MAX, len()).prop_map(|(at, len)| (at, len, WRITE));
    let straddling = (LAST_PAGE..MEM as u64, len()).prop_map(|(at, len)| (at, len, WRITE));
    let empty = any::<u64>().prop_map(|at| (at, 0, WRITE));
    let readable = (0..MEM as u64, len()).prop_map(|(at, len)| (at, len, 0));
    let header = (0_u64..16).prop_map(|n| (HEADERS + 16 * n, 16, 0));
    let table_len = prop_oneof![
        4 => (0_u32..=256).prop_map(|n| n * 16),
        1 => len(),
        1 => Just(65535 * 16),
    ];
    let table_at = prop_oneof![
        8 => (0_u64..4).prop_map(|n| TABLES + n * 0x1000),
        1 => Just(OFFERED.end),
        1 => MEM as u64 - 64..=u64::MAX,
    ];
    let table = (table_at, table_len).prop_map(|(at, len)| (at, len, INDIRECT));
    let one = prop_oneof![
        12 => offered, 1 => outside, 1 => straddling, 1 => empty, 3 => readable, 6 => header,
        4 => table
    ];
    let next = prop_oneof![9 => 0_u16..20, 1 => any::<u16>()];
    let more = prop_oneof![3 => Just(0), 2 => Just(NEXT)];
    (one, more, next).prop_map(|((at, len, flags), more, next)| (at, len, flags | more, next))
}

/// A step after which every device stops.
fn broken() -> impl Strategy<Value = Step> {
    prop_oneof![
        (16_u16..300).prop_map(Step::Publish),
        any::<u16>().prop_map(Step::AvailIndex),
    ]
}

fn after_start(step: impl Strategy<Value = Step>) -> impl Strategy<Value = Vec<Step>> {
    (start(), vec(step, 1..80)).prop_map(|(start, mut steps)| {
        steps.insert(0, start);
        steps
    })
}

fn honest_steps() -> impl Strategy<Value = Vec<Step>> {
    let index = prop_oneof![9 => 0_u16..16, 1 => 0_u16..256];
    let step = prop_oneof![
        12 => (index, honest_descriptor()).prop_map(|(i, d)| Step::Descriptor(i, d)),
        6 => (0_u64..4, 0_u16..8, honest_descriptor())
            .prop_map(|(t, i, d)| Step::Indirect(t, i, d)),
        16 => (0_u16..16).prop_map(Step::Publish),
        2 => (0_u16..3, any::<u16>()).prop_map(|(f, e)| Step::Suppress(f, e)),
        16 => doing(),
        1 => broken(),
        1 => Just(Step::Register(0x70, 0)),
        2 => start(),
    ];
    after_start(step)
}

/// Any steps: overlapping rings, tables in rings, meaningless values.
fn any_steps() -> impl Strategy<Value = Vec<Step>> {
    let flags = prop_oneof![0_u16..8, any::<u16>()];
    let at = prop_oneof![0_u64..0xa000, 0_u64..MEM as u64 + 64, any::<u64>()];
    let any_descriptor = (at.clone(), len(), flags, 0_u16..20);
    let step = prop_oneof![
        4 => (register(), value()).prop_map(|(r, v)| Step::Register(r, v)),
        2 => status(),
        1 => access(),
        6 => (0_u16..16, any_descriptor).prop_map(|(i, d)| Step::Descriptor(i, d)),
        4 => (0_u16..16).prop_map(Step::Publish),
        4 => (at, any::<u64>()).prop_map(|(a, v)| Step::Poke(a, v)),
        4 => (0_u64..0x9000, 0_u64..20).prop_map(|(a, v)| Step::Poke(a, v)),
        8 => doing(),
        2 => start(),
    ];
    after_start(step)
}

fn register_steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (register(), value()).prop_map(|(r, v)| Step::Register(r, v)),
        4 => status(),
        // The transport's own features, so that some negotiations succeed.
        2 => Just(Step::Register(0x24, 1)),
        2 => Just(Step::Register(0x20, 1)),
        2 => Just(Step::Register(0x44, 1)),
        4 => access(),
        3 => doing(),
        2 => start(),
        3 => honest_descriptor().prop_map(|d| Step::Descriptor(0, d)),
        3 => Just(Step::Publish(0)),
    ];
    after_start(step)
}

struct Attack {
    case: Case,
    ring: Ring,
    /// The device used a buffer.
    served: bool,
    /// The device requested a reset.
    broken: bool,
}

impl Attack {
    fn new(subject: &'static Subject, event_loop: &TestLoop) -> Self {
        let case = Case::with(subject, memory(), event_loop.clone());
        let mem = &case.guest.mem;
        mem.write_slice(&vec![CANARY; MEM], GuestAddress(0))
            .unwrap();
        mem.write_slice(&[0; 0x1_0000], GuestAddress(TABLES))
            .unwrap();
        let kinds = [0_u32, 1, 4, 8, 11, 13, 99, 0];
        let sectors = [0, 1, u64::from(SECTORS) - 1, u64::from(SECTORS), u64::MAX];
        for (n, at) in (0_usize..16).zip((HEADERS..).step_by(16)) {
            let mut header = [0; 16];
            header[..4].copy_from_slice(&kinds[n % kinds.len()].to_le_bytes());
            header[8..].copy_from_slice(&sectors[n % sectors.len()].to_le_bytes());
            mem.write_slice(&header, GuestAddress(at)).unwrap();
        }
        let ring = Ring::new(u32::try_from(subject.queue).unwrap(), 16);
        Self {
            case,
            ring,
            served: false,
            broken: false,
        }
    }

    fn settle(&mut self) {
        let guest = &self.case.guest;
        guest.settle();
        let index = guest.mem.read_obj::<u16>(GuestAddress(self.ring.used + 2));
        self.served |= !matches!(index, Ok(0 | 0x5a5a));
        self.broken |= guest.read(0x70) & 0x40 != 0;
    }

    fn step(&mut self, step: &Step) {
        let guest = &self.case.guest;
        let mem = &guest.mem;
        match *step {
            Step::Access(offset, width, None) => {
                let mut data = [0; 8];
                guest.bus.read(WINDOW_BASE + offset, &mut data[..width]);
            }
            Step::Access(offset, width, Some(value)) => {
                let data = value.to_le_bytes();
                guest.bus.write(WINDOW_BASE + offset, &data[..width]);
            }
            Step::Register(register, value) => {
                guest.write(register, value);
                guest.read(register);
            }
            Step::Descriptor(index, descriptor) => {
                self.ring.set_descriptor(mem, index, descriptor);
            }
            Step::Indirect(table, index, descriptor) => {
                let mut ring = self.ring.clone();
                ring.desc = TABLES + table * 0x1000;
                ring.set_descriptor(mem, index, descriptor);
            }
            Step::Publish(head @ 0..16) => self.ring.publish(mem, head % self.ring.size),
            Step::Publish(head) => self.ring.publish(mem, head),
            Step::AvailIndex(index) => self.ring.set_avail_index(mem, index),
            Step::Suppress(flags, event) => {
                let ring = &self.ring;
                mem.write_obj(flags, GuestAddress(ring.avail)).unwrap();
                let at = ring.avail + 4 + 2 * u64::from(ring.size);
                mem.write_obj(event, GuestAddress(at)).unwrap();
            }
            // A write partly or completely outside memory has no effect.
            Step::Poke(at, value) => drop(mem.write_obj(value, GuestAddress(at))),
            Step::Kick(queue) => guest.kick(queue),
            Step::Stimulate => self.case.stimulate(),
            Step::Pause => self.case.pause(),
            Step::Resume => self.case.resume(),
            Step::Push => {
                self.case.stimulate();
                self.case.kick();
            }
            Step::Settle => self.settle(),
            Step::Start(features, size) => {
                let needs = self.case.subject.needs;
                let rings = guest.start(guest.offered() & features | 1 << 32 | needs, size);
                self.ring = rings[self.case.subject.queue].clone();
                // Unless a step changes it, each descriptor is a writable buffer.
                for (index, at) in (0..16).zip(OFFERED.step_by(0x1000)) {
                    self.ring.set_descriptor(mem, index, (at, 2048, WRITE, 0));
                }
            }
        }
    }
}

/// Runs `steps` on each device, `BANTAM_CASES` times. `canaries` must survive.
fn attack<S: Strategy<Value = Vec<Step>>>(steps: impl Fn() -> S, canaries: bool) {
    let event_loop = RefCell::new(TestLoop::spawn());
    for subject in &SUBJECTS {
        let [cases, served, broken] = [0_u32; 3].map(Cell::new);
        let run = |steps: Vec<Step>| {
            if !event_loop.borrow().is_alive() {
                // The previous case ended the loop; this one is a smaller variant of it.
                *event_loop.borrow_mut() = TestLoop::spawn();
            }
            let mut attack = Attack::new(subject, &event_loop.borrow());
            steps.iter().for_each(|step| attack.step(step));
            [Step::Resume, Step::Push, Step::Settle]
                .iter()
                .for_each(|step| attack.step(step));
            cases.set(cases.get() + 1);
            served.set(served.get() + u32::from(attack.served));
            broken.set(broken.get() + u32::from(attack.broken));
            for canary in CANARIES.into_iter().filter(|_| canaries && !subject.frees) {
                let len = usize::try_from(canary.end - canary.start).unwrap();
                let now = bytes(&attack.case.guest.mem, canary.start, len);
                assert!(now == vec![CANARY; len], "wrote what was not offered");
            }
            if let Some(image) = &attack.case.outside.image {
                let len = image.as_file().metadata().unwrap().len();
                assert_eq!(len, 512 * u64::from(SECTORS), "size of the image");
            }
            // A paused transport is left to the next start.
            attack.case.recovers();
            Ok(())
        };
        if let Err(e) = properties().run(&steps(), run) {
            panic!("{}: {e}", subject.name);
        }
        let (cases, served, broken) = (cases.get(), served.get(), broken.get());
        println!(
            "{}: {served} served, {broken} broken of {cases}",
            subject.name
        );
        let little = served <= cases / 5 || broken <= cases / 100;
        assert!(!little, "these cases try little");
    }
    assert!(peak_mib() < 512, "{} MiB resident", peak_mib());
}

/// Peak resident memory of this process.
fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib / 1024
}

#[test]
fn registers_in_any_order_are_survived() {
    attack(register_steps, true);
}

#[test]
fn rings_of_any_shape_are_survived() {
    attack(honest_steps, true);
}

#[test]
fn any_guest_behaviour_is_survived() {
    attack(any_steps, false);
}

#[test]
fn an_index_that_another_vcpu_changes_is_survived() {
    let event_loop = TestLoop::spawn();
    for subject in &SUBJECTS {
        for _ in 0..20 {
            let case = Case::with(subject, memory(), event_loop.clone());
            let mut rings = case.start();
            case.add(&mut rings, 0);
            let ring = rings[subject.queue].clone();
            let stop = Arc::new(AtomicBool::new(false));
            let (mem, stopped) = (case.guest.mem.clone(), stop.clone());
            let mover = std::thread::spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    ring.set_avail_index(&mem, 0);
                    ring.set_avail_index(&mem, 1);
                }
            });
            for _ in 0..20 {
                case.stimulate();
                case.kick();
            }
            case.guest.settle();
            stop.store(true, Ordering::Relaxed);
            mover.join().unwrap();
            case.recovers();
        }
    }
}

/// The largest work of a full ring of the longest chains.
#[test]
fn a_ring_full_of_the_longest_chains_is_served_in_time() {
    for subject in &SUBJECTS {
        let case = Case::new(subject);
        let mem = case.guest.mem.clone();
        let mut rings = case.start();
        let ring = &mut rings[subject.queue];
        // A table of 65535 entries, each of which is the whole table again, of empty buffers.
        for at in (0x1_0000_u64..0x10_0000).step_by(16) {
            let next = (at - 0x1_0000) / 16 + 1;
            mem.write_obj(
                u64::from(NEXT | WRITE) << 32 | next << 48,
                GuestAddress(at + 8),
            )
            .unwrap();
        }
        for index in 0..16 {
            ring.set_descriptor(&mem, index, (0x1_0000, 65535 * 16, INDIRECT, 0));
            ring.publish(&mem, index);
        }
        case.stimulate();
        let start = Instant::now();
        case.kick();
        case.guest.settle();
        assert!(start.elapsed() < Duration::from_secs(5));
        case.recovers();
    }
}
