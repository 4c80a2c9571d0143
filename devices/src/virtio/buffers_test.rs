use super::*;
use crate::testing::{DATA, MEM, Ring, memory, memory_of, properties, take_dirty};
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use virtio_queue::{Queue, QueueOwnedT, QueueState};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

fn collect(mem: &GuestMemory, ring: &mut Ring, head: u16) -> Result<ChainBuffers, BrokenChain> {
    ring.seek(mem, 0);
    ring.publish(mem, head);
    let mut queue = Queue::try_from(QueueState {
        max_size: ring.size,
        size: ring.size,
        ready: true,
        desc_table: ring.desc,
        avail_ring: ring.avail,
        used_ring: ring.used,
        ..QueueState::default()
    })
    .unwrap();
    let chain = queue.iter(mem).unwrap().next().unwrap();
    ChainBuffers::collect(chain)
}

#[test]
fn a_chain_has_a_readable_and_a_writable_stream() {
    let mem = memory();
    let mut ring = Ring::new(0, 16);
    for (index, descriptor) in (0..).zip([
        (0x1000, 10, NEXT, 1),
        (u64::MAX, 0, NEXT, 2),
        (0x2000, 20, NEXT, 3),
        (0x3000, 30, NEXT | WRITE, 4),
        (0x4000, 40, WRITE, 0),
    ]) {
        ring.set_descriptor(&mem, index, descriptor);
    }
    let buffers = collect(&mem, &mut ring, 0).unwrap();
    assert_eq!(buffers.readable.len(), 30);
    assert_eq!(buffers.writable.len(), 70);
    ring.set_descriptor(&mem, 4, (0x4000, 40, 0, 0));
    assert_eq!(collect(&mem, &mut ring, 0), Err(BrokenChain::Order));
}

#[test]
fn a_truncated_chain_is_an_error() {
    let mem = memory();
    let mut ring = Ring::new(0, 4);
    let table = DATA;
    let broken = [
        ("a loop", (0x1000, 1, NEXT, 0)),
        ("past the table", (0x1000, 1, NEXT, 4)),
        ("an empty table", (table, 0, INDIRECT, 0)),
        ("half a descriptor", (table, 24, INDIRECT, 0)),
        ("a table outside memory", (MEM as u64, 32, INDIRECT, 0)),
        ("a table past the end", (u64::MAX - 7, 32, INDIRECT, 0)),
        ("too long a table", (table, 65536 * 16, INDIRECT, 0)),
    ];
    for (what, descriptor) in broken {
        ring.set_descriptor(&mem, 0, descriptor);
        assert_eq!(collect(&mem, &mut ring, 0), Err(BrokenChain::Cut), "{what}");
    }
    assert_eq!(collect(&mem, &mut ring, 4), Err(BrokenChain::Cut), "head");

    let mut entries = ring.clone();
    entries.desc = table;
    ring.set_descriptor(&mem, 0, (table, 32, INDIRECT, 0));
    entries.set_descriptor(&mem, 0, (0x1000, 8, NEXT, 1));
    entries.set_descriptor(&mem, 1, (0x1000, 8, 0, 0));
    assert_eq!(collect(&mem, &mut ring, 0).unwrap().readable.len(), 16);
    entries.set_descriptor(&mem, 1, (table, 32, INDIRECT, 0));
    assert_eq!(collect(&mem, &mut ring, 0), Err(BrokenChain::Cut), "nested");
    entries.set_descriptor(&mem, 0, (0x1000, u32::MAX, NEXT, 1));
    entries.set_descriptor(&mem, 1, (0x1000, 1, 0, 0));
    assert_eq!(collect(&mem, &mut ring, 0), Err(BrokenChain::Cut), "4 GiB");
}

#[test]
fn empty_buffers_count_towards_the_limit_of_a_chain() {
    let mem = memory();
    let mut ring = Ring::new(0, 4);
    let mut entries = ring.clone();
    entries.desc = DATA;
    for last in [1023_u16, 1024] {
        for index in 0..=last {
            let flags = if index == last { 0 } else { NEXT };
            entries.set_descriptor(&mem, index, (0, 0, flags, index + 1));
        }
        ring.set_descriptor(&mem, 0, (DATA, 16 * 1025, INDIRECT, 0));
        let collected = collect(&mem, &mut ring, 0);
        match last {
            1023 => assert_eq!(collected, Ok(ChainBuffers::default())),
            _ => assert_eq!(collected, Err(BrokenChain::TooManyParts)),
        }
    }
}

/// A stream of pieces that do not overlap, each 4 KiB after the one before.
fn stream(lens: &[usize]) -> Parts {
    let mut parts = Parts::default();
    for (len, at) in lens.iter().zip((DATA..).step_by(0x1000)) {
        parts.push(GuestAddress(at), *len);
    }
    parts
}

#[test]
fn a_stream_is_the_same_however_it_is_split() {
    let lens = vec(0_usize..2000, 0..40);
    let strategy = (lens, any::<proptest::sample::Index>(), any::<u8>());
    let run = |(lens, cut, seed): (Vec<usize>, proptest::sample::Index, u8)| {
        let mem = memory();
        let whole = stream(&lens);
        assert_eq!(whole.len(), lens.iter().sum::<usize>());
        let bytes: Vec<u8> = (0..whole.len())
            .map(|n| seed.wrapping_add(n.to_le_bytes()[0]).wrapping_mul(31))
            .collect();
        whole.write(&mem, &bytes).unwrap();
        let at = cut.index(whole.len() + 1);
        assert_eq!(whole.clone().split_at(whole.len() + 1), None);
        let (front, back) = whole.clone().split_at(at).unwrap();
        assert_eq!((front.len(), back.len()), (at, whole.len() - at));
        let (mut left, mut right) = (vec![0; front.len()], vec![0; back.len()]);
        front.read(&mem, &mut left).unwrap();
        back.read(&mem, &mut right).unwrap();
        assert_eq!([left, right].concat(), bytes);

        // And through a file, at an offset.
        let file = tempfile::tempfile().unwrap();
        front.write_at(&mem, file.as_fd(), 100).unwrap();
        back.write_at(&mem, file.as_fd(), 100 + at as u64).unwrap();
        let again = memory();
        whole.read_at(&again, file.as_fd(), 100).unwrap();
        let mut read = vec![0; bytes.len()];
        whole.read(&again, &mut read).unwrap();
        assert_eq!(read, bytes);
        Ok(())
    };
    properties().run(&strategy, run).unwrap();
}

#[test]
fn a_stream_too_short_or_outside_memory_is_an_error() {
    let mem = memory();
    let parts = stream(&[10, 20]);
    assert!(parts.read(&mem, &mut [0; 31]).is_err());
    assert!(parts.write(&mem, &[0; 31]).is_err());
    assert!(parts.read(&mem, &mut []).is_ok());
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[7; 25]).unwrap();
    let short = parts.read_at(&mem, file.as_fd(), 0).unwrap_err();
    assert_eq!(short.kind(), io::ErrorKind::UnexpectedEof);
    assert!(parts.write_at(&mem, file.as_fd(), u64::MAX).is_err());
    assert!(parts.read_at(&mem, file.as_fd(), u64::MAX).is_err());
    assert!(Parts::default().read_at(&mem, file.as_fd(), 0).is_ok());

    for (at, len) in [
        (MEM as u64 - 1, 2),
        (MEM as u64, 1),
        (u64::MAX, 1),
        (0, MEM + 1),
    ] {
        let mut outside = stream(&[5]);
        outside.push(GuestAddress(at), len);
        let mut bytes = vec![0; outside.len()];
        assert!(outside.read(&mem, &mut bytes).is_err());
        assert!(outside.write(&mem, &bytes).is_err());
        for done in [
            outside.read_at(&mem, file.as_fd(), 0),
            outside.write_at(&mem, file.as_fd(), 0),
            outside.send(&mem, file.as_fd()).map(drop),
        ] {
            assert_eq!(done.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let (_, rest) = outside.split_at(6).unwrap();
        assert_eq!(rest.len(), len - 1);
    }
    let mut now = [0; 25];
    file.read_exact_at(&mut now, 0).unwrap();
    assert_eq!(now, [7; 25], "nothing of a bad stream is stored");
}

#[test]
fn more_parts_than_one_system_call_takes_are_transferred() {
    // Each piece lies over the border of two regions, so that it is two.
    let border = 0x1_0000;
    let mem = memory_of(&[(0, border), (border as u64, border)], false);
    mem.write_slice(b"abcd", GuestAddress(border as u64 - 2))
        .unwrap();
    let mut parts = Parts::default();
    for _ in 0..MAX_PARTS {
        parts.push(GuestAddress(border as u64 - 2), 4);
    }
    assert_eq!(parts.slices(&mem, Permissions::Read).unwrap().len(), 2048);
    let file = tempfile::tempfile().unwrap();
    parts.write_at(&mem, file.as_fd(), 3).unwrap();
    let mut stored = vec![0; 4 * MAX_PARTS];
    file.read_exact_at(&mut stored, 3).unwrap();
    assert_eq!(stored, b"abcd".repeat(MAX_PARTS));
    parts.read_at(&mem, file.as_fd(), 4).unwrap_err();
    parts.read_at(&mem, file.as_fd(), 3).unwrap();
    let null = File::options().write(true).open("/dev/null").unwrap();
    assert!(
        parts.send(&mem, null.as_fd()).is_err(),
        "no message of 2048 pieces"
    );
}

#[test]
fn pages_written_by_a_failed_read_are_marked_dirty() {
    let mem = memory_of(&[(0, 0x10000)], true);
    let mut parts = Parts::default();
    parts.push(GuestAddress(0x1ff0), 0x20);
    parts.push(GuestAddress(0x5000), 1);
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[7; 0x18], 0).unwrap();
    parts.read_at(&mem, file.as_fd(), 0).unwrap_err();
    assert_eq!(take_dirty(&mem), [1, 2, 5]);
    parts.write_at(&mem, file.as_fd(), 0).unwrap();
    parts.read_at(&mem, file.as_fd(), 0x1000).unwrap_err();
    assert_eq!(take_dirty(&mem), [1, 2, 5]);
    assert!(take_dirty(&mem).is_empty());
}

#[test]
fn a_short_transfer_is_continued() {
    let mem = memory();
    let parts = stream(&[10, 1, 20, 5]);
    let slices = parts.slices(&mem, Permissions::Read).unwrap();
    for most in 1..40 {
        let mut sent = Vec::new();
        let calls = std::cell::RefCell::new(&mut sent);
        transfer(&slices, 1000, |vector, at| {
            let len = vector.iter().map(GuestSlice::len).sum::<usize>().min(most);
            calls.borrow_mut().push((at, len));
            Ok(len)
        })
        .unwrap();
        let mut expected = 1000;
        for (at, len) in sent {
            assert_eq!(at, expected);
            expected += len as u64;
        }
        assert_eq!(expected, 1036);
    }
    let interrupted = std::cell::Cell::new(3);
    transfer(&slices, 0, |vector, _| {
        if interrupted.get() > 0 {
            interrupted.set(interrupted.get() - 1);
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(vector.iter().map(GuestSlice::len).sum())
    })
    .unwrap();
}
