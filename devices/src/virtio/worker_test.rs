//! Queues that a driver leaves disabled, as it may.

use crate::testing::*;
use crate::util::source::Source;
use crate::virtio::device::{Loops, Offer, QueueHandler, VirtioDevice};
use crate::virtio::queue::{DeviceQueue, QueueError};
use crate::virtio::state::{DeviceState, StateError};
use event_manager::EventSet;
use nix::sched::{CloneFlags, unshare};
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

const VERSION_1: u64 = 1 << 32;
const QUEUES: usize = 3;

/// A device of some queues and a source that tells what it is called for.
struct Probe {
    source: UnixStream,
    calls: Sender<(&'static str, usize)>,
}

impl Probe {
    /// It, what makes its source ready, and its calls.
    fn new() -> (Self, UnixStream, Receiver<(&'static str, usize)>) {
        let (source, bell) = UnixStream::pair().unwrap();
        let (calls, called) = channel();
        (Self { source, calls }, bell, called)
    }
}

impl VirtioDevice for Probe {
    fn offer(&self) -> Offer {
        Offer {
            id: 4,
            features: 0,
            queue_sizes: vec![16; QUEUES],
            loops: Loops::Shared,
        }
    }

    fn start(&mut self, _features: u64) -> io::Result<Box<dyn QueueHandler>> {
        Ok(Box::new(Self {
            source: self.source.try_clone()?,
            calls: self.calls.clone(),
        }))
    }

    fn save(&self) -> DeviceState {
        DeviceState::default()
    }

    fn restore(&mut self, _state: &DeviceState) -> Result<(), StateError> {
        Ok(())
    }
}

impl QueueHandler for Probe {
    fn sources(&self) -> io::Result<Vec<Source>> {
        Ok(vec![Source {
            fd: self.source.try_clone()?.into(),
            events: EventSet::IN,
        }])
    }

    fn on_queue(&mut self, index: usize, _queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        self.calls.send(("queue", index)).unwrap();
        Ok(())
    }

    fn on_source(&mut self, token: usize, _queues: &mut [DeviceQueue]) -> Result<(), QueueError> {
        self.source.read_exact(&mut [0]).unwrap();
        self.calls.send(("source", token)).unwrap();
        Ok(())
    }
}

/// Event descriptors of the calling thread's table.
fn eventfds() -> usize {
    let open = std::fs::read_dir("/proc/thread-self/fd").unwrap();
    let targets = open.filter_map(|fd| std::fs::read_link(fd.unwrap().path()).ok());
    targets
        .filter(|target| target.as_os_str() == "anon_inode:[eventfd]")
        .count()
}

#[test]
fn a_disabled_queue_has_no_doorbell_and_no_token() {
    let (probe, mut bell, called) = Probe::new();
    let guest = FakeGuest::new(Box::new(probe));
    assert_eq!(guest.negotiate(VERSION_1), 11);
    guest.enable(&Ring::new(1, 16));
    assert_eq!(guest.driver_ok(), 15);
    let next = || called.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(
        next(),
        ("queue", 1),
        "each enabled queue is served at first"
    );
    for queue in [0, 2, 1] {
        guest.kick(queue);
    }
    assert_eq!(next(), ("queue", 1));
    bell.write_all(&[1]).unwrap();
    assert_eq!(next(), ("source", 0));
    guest.settle();
    assert!(called.try_recv().is_err());
}

/// A vCPU's filter lets it duplicate descriptors, not make events.
#[test]
fn a_start_creates_no_eventfd_for_a_disabled_queue() {
    let counted = std::thread::spawn(|| {
        // A table of its own: other tests open and close meanwhile. The loop shares it.
        unshare(CloneFlags::CLONE_FILES).unwrap();
        let (probe, _bell, _called) = Probe::new();
        let guest = FakeGuest::with(Box::new(probe), memory(), TestLoop::spawn());
        assert_eq!(guest.negotiate(VERSION_1), 11);
        let before = eventfds();
        assert_eq!(guest.driver_ok(), 15);
        guest.settle();
        eventfds() - before
    });
    // One for each, with which the queue tells of its own work.
    assert_eq!(counted.join().unwrap(), QUEUES);
}
