use super::*;
use crate::testing::{DATA, MEM, memory_of, take_dirty};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

const CLOCK: u64 = DATA + 0x1000;

struct Bench {
    generation: Generation,
    mem: GuestMemory,
    irq: EventFd,
}

fn bench() -> Bench {
    let mem = memory_of(&[(0, MEM)], true);
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let (id, clock) = (GuestAddress(DATA), GuestAddress(CLOCK));
    let line = irq.try_clone().unwrap();
    Bench {
        generation: Generation::new(mem.clone(), id, clock, line),
        mem,
        irq,
    }
}

impl Bench {
    fn id(&self) -> [u8; 16] {
        self.mem.read_obj(GuestAddress(DATA)).unwrap()
    }

    /// The structure as Linux 6.13 has it: 112 bytes.
    fn clock(&self) -> [u8; 112] {
        let mut bytes = [0; 112];
        self.mem
            .read_slice(&mut bytes, GuestAddress(CLOCK))
            .unwrap();
        bytes
    }

    /// Sequence, disruptions and generations.
    fn counts(&self) -> (u32, u64, u64) {
        let clock = self.clock();
        let word = |at: usize| u64::from_le_bytes(clock[at..at + 8].try_into().unwrap());
        let sequence = u32::from_le_bytes(clock[12..16].try_into().unwrap());
        (sequence, word(0x10), word(0x68))
    }
}

#[test]
fn a_booting_guest_has_an_id_and_a_clock_without_a_counter() {
    let [one, other] = [bench(), bench()];
    one.generation.first().unwrap();
    other.generation.first().unwrap();
    assert!(one.id() != other.id() && one.id() != [0; 16]);
    let mut expected = [0; 112];
    expected[..8].copy_from_slice(b"VCLK\0\x10\0\0");
    expected[8..12].copy_from_slice(&[1, 0, 0xff, 0]);
    expected[0x19] = 3; // flags 8 and 9
    assert_eq!(one.clock(), expected);
    assert!(one.irq.read().is_err(), "nobody listens yet");
}

#[test]
fn renewing_changes_the_id_and_interrupts_the_guest() {
    let bench = bench();
    bench.generation.first().unwrap();
    let (id, clock) = (bench.id(), bench.clock());
    take_dirty(&bench.mem);
    bench.generation.renew().unwrap();
    assert_ne!(bench.id(), id);
    assert_eq!(bench.counts(), (2, 1, 1));
    assert_eq!(bench.irq.read().unwrap(), 1);
    let second = bench.id();
    bench.generation.renew().unwrap();
    assert!(bench.id() != id && bench.id() != second);
    assert_eq!(bench.counts(), (4, 2, 2));
    let mut rest = bench.clock();
    for field in [12..16, 0x10..0x18, 0x68..0x70] {
        rest[field.clone()].copy_from_slice(&clock[field]);
    }
    assert_eq!(rest, clock, "nothing else changes");
    let pages = [DATA / 4096, CLOCK / 4096];
    assert_eq!(take_dirty(&bench.mem), pages, "both go into a snapshot");
}

#[test]
fn a_page_that_the_guest_overwrote_is_renewed() {
    let bench = bench();
    for (before, after) in [(u32::MAX, 0), (u32::MAX - 1, 0), (7, 8), (6, 8)] {
        let garbage = [0xff; 0x1000];
        bench
            .mem
            .write_slice(&garbage, GuestAddress(CLOCK))
            .unwrap();
        let sequence = GuestAddress(CLOCK + 12);
        bench.mem.write_obj(before.to_le(), sequence).unwrap();
        bench.generation.renew().unwrap();
        assert_eq!(bench.counts(), (after, 0, 0));
    }
}

#[test]
fn an_address_outside_memory_is_an_error() {
    for (id, clock) in [(MEM as u64, DATA), (DATA, MEM as u64), (DATA, u64::MAX)] {
        let bench = bench();
        let generation = Generation {
            id: GuestAddress(id),
            clock: GuestAddress(clock),
            ..bench.generation
        };
        assert!(matches!(
            generation.first(),
            Err(GenerationError::Memory(_))
        ));
        assert!(matches!(
            generation.renew(),
            Err(GenerationError::Memory(_))
        ));
        assert!(bench.irq.read().is_err());
    }
}
