use super::*;
use crate::testing::{DATA, Ring, memory};
use std::sync::Mutex;
use virtio_queue::QueueState;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

const NO_NOTIFY: u16 = 1;
const SIZE: u16 = 8;

/// Counts interrupts.
#[derive(Default)]
struct Count(Mutex<u32>);

impl Count {
    fn take(&self) -> u32 {
        std::mem::take(&mut *crate::lock(&self.0))
    }
}

impl Interrupt for Count {
    fn trigger(&self, cause: Cause) -> io::Result<()> {
        assert_eq!(cause, Cause::Queue(3));
        *crate::lock(&self.0) += 1;
        Ok(())
    }
}

/// A queue between a driver and a device that are both the test.
struct Bench {
    mem: GuestMemory,
    ring: Ring,
    queue: DeviceQueue,
    kick: EventFd,
    interrupts: Arc<Count>,
}

impl Bench {
    fn new(event_idx: bool) -> Self {
        let mem = memory();
        let ring = Ring::new(0, SIZE);
        let queue = Queue::try_from(QueueState {
            max_size: SIZE,
            size: SIZE,
            ready: true,
            event_idx_enabled: event_idx,
            desc_table: ring.desc,
            avail_ring: ring.avail,
            used_ring: ring.used,
            ..QueueState::default()
        });
        let kick = EventFd::new(EFD_NONBLOCK).unwrap();
        let interrupts = Arc::new(Count::default());
        let queue = DeviceQueue::new(
            3,
            Some(queue.unwrap()),
            mem.clone(),
            interrupts.clone(),
            kick.try_clone().unwrap(),
        );
        Self {
            mem,
            ring,
            queue,
            kick,
            interrupts,
        }
    }

    fn add(&mut self, chains: u16) {
        for _ in 0..chains {
            self.ring.add(&self.mem, &[(DATA, 16, true)]);
        }
    }

    fn used(&mut self) -> usize {
        std::iter::from_fn(|| self.ring.take_used(&self.mem)).count()
    }

    fn wants_kicks(&self) -> bool {
        let flags: u16 = self.mem.read_obj(GuestAddress(self.ring.used)).unwrap();
        flags & NO_NOTIFY == 0
    }

    fn set_used_event(&self, event: u16) {
        let at = self.ring.avail + 4 + 2 * u64::from(SIZE);
        self.mem.write_obj(event, GuestAddress(at)).unwrap();
    }
}

#[test]
fn a_driver_that_refills_the_queue_waits_for_its_next_turn() {
    let mut bench = Bench::new(false);
    bench.add(2);
    let (mut ring, mut served) = (bench.ring.clone(), 0);
    bench
        .queue
        .serve(|mem, _| {
            served += 1;
            ring.add(mem, &[(DATA, 16, true)]);
            Served::Done(0)
        })
        .unwrap();
    assert_eq!(served, SIZE);
    assert!(bench.kick.read().is_ok(), "it must come back by itself");
    assert!(!bench.wants_kicks(), "and needs no kick until then");
    assert_eq!(bench.interrupts.take(), 1, "one for all");
}

#[test]
fn a_served_queue_enables_kicks() {
    let mut bench = Bench::new(false);
    bench.add(3);
    bench.queue.serve(|_, _| Served::Done(7)).unwrap();
    assert!(bench.wants_kicks());
    assert!(bench.kick.read().is_err());
    assert_eq!(bench.ring.take_used(&bench.mem), Some((0, 7)));
    assert_eq!(bench.used(), 2);
    bench.queue.serve(|_, _| Served::Done(7)).unwrap();
    assert_eq!(bench.interrupts.take(), 1, "nothing used, nothing told");
}

#[test]
fn chains_not_taken_are_offered_again() {
    let mut bench = Bench::new(false);
    bench.add(3);
    let mut heads = Vec::new();
    for _ in 0..3 {
        bench
            .queue
            .serve(|_, chain| {
                heads.push(chain.head_index());
                Served::NotYet
            })
            .unwrap();
    }
    assert_eq!((heads, bench.used()), (vec![0, 0, 0], 0));
    bench.queue.serve(|_, _| Served::Later).unwrap();
    assert_eq!((bench.used(), bench.interrupts.take()), (0, 0));
    for head in [2, 0, 1] {
        bench.queue.complete(head, u32::from(head) + 1).unwrap();
        let used = bench.ring.take_used(&bench.mem);
        assert_eq!(used, Some((u32::from(head), u32::from(head) + 1)));
    }
    assert_eq!(bench.interrupts.take(), 3);
}

#[test]
fn an_event_index_passed_within_a_batch_interrupts() {
    for (event, told) in [(0, 1), (1, 1), (2, 1), (3, 0), (4, 0), (u16::MAX, 0)] {
        let mut bench = Bench::new(true);
        bench.add(3);
        bench.set_used_event(event);
        bench.queue.serve(|_, _| Served::Done(0)).unwrap();
        assert_eq!(bench.interrupts.take(), told, "used_event {event}");
        bench.queue.signal().unwrap();
        assert_eq!(bench.interrupts.take(), 0, "once");
    }
}

#[test]
fn a_message_without_room_leaves_the_ring_unchanged() {
    let merged = Layout::Merged { count_at: 2 };
    let mut bench = Bench::new(false);
    let mut message = [0xaa; 40];
    bench.add(2);
    let before = bench.queue.positions();
    for layout in [merged, Layout::OneChain] {
        let expected = match layout {
            Layout::OneChain => Placed::TooLong,
            Layout::Merged { .. } => Placed::NoRoom,
        };
        assert_eq!(bench.queue.place(&mut message, layout).unwrap(), expected);
        assert_eq!(bench.queue.positions(), before);
    }
    assert_eq!(
        bench.queue.place(&mut message, merged).unwrap(),
        Placed::NoRoom
    );
    assert!(bench.wants_kicks(), "to hear of more");
    bench.add(1);
    assert_eq!(
        bench.queue.place(&mut message, merged).unwrap(),
        Placed::Yes
    );
    assert_eq!(message[2..4], [3, 0]);
    assert_eq!(bench.interrupts.take(), 0, "not yet");
    bench.queue.signal().unwrap();
    assert_eq!(bench.interrupts.take(), 1);
    let lens: Vec<_> = std::iter::from_fn(|| bench.ring.take_used(&bench.mem)).collect();
    assert_eq!(lens, [(0, 16), (1, 16), (2, 8)]);
}

#[test]
fn a_disabled_queue_is_not_used() {
    let mut bench = Bench::new(false);
    bench.queue.queue = None;
    assert!(!bench.queue.is_ready());
    let queue = &mut bench.queue;
    let errors = [
        queue.serve(|_, _| Served::Done(0)),
        queue.complete(0, 0),
        queue.signal(),
        queue.place(&mut [0], Layout::OneChain).map(drop),
    ];
    for error in errors {
        assert!(matches!(error, Err(QueueError::NotReady(3))));
    }
    assert_eq!(bench.queue.positions(), None);
}
