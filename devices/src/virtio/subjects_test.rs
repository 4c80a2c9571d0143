//! The devices under test of the conformance and the hostile suite: how to create each, and a request that proves that
//! it works.

use crate::balloon::Balloon;
use crate::block::backing::Backing;
use crate::block::{Block, BlockOptions};
use crate::net::tap::{HEADER, Tap};
use crate::net::{Net, NetOptions};
use crate::rng::Rng;
use crate::testing::*;
use crate::virtio::device::VirtioDevice;
use crate::virtio::state::VirtioState;
use crate::vsock::Vsock;
use crate::{GuestMemory, lock};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use std::cell::RefCell;
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use vm_memory::{Bytes, GuestAddress};

/// The host resources behind a device.
#[derive(Default)]
pub struct Outside {
    /// The other end of a network card's tap.
    pub peer: Option<File>,
    /// The image of a disk.
    pub image: Option<tempfile::NamedTempFile>,
    /// The host's side of a socket device.
    pub sockets: Option<Sockets>,
}

/// Clients and a server of a socket device.
pub struct Sockets {
    dir: tempfile::TempDir,
    /// Kept open, so that the device does not see them close.
    clients: RefCell<Vec<UnixStream>>,
    /// Listener for the guest's requests.
    server: UnixListener,
}

impl Outside {
    pub fn peer(&self) -> &File {
        self.peer.as_ref().unwrap()
    }

    pub fn sockets(&self) -> &Sockets {
        self.sockets.as_ref().unwrap()
    }

    /// Drains the host side.
    pub fn empty(&self) {
        while self.peer.is_some() && self.received().is_some() {}
        if let Some(Sockets { server, .. }) = &self.sockets {
            while server.accept().is_ok() {}
        }
    }

    /// Returns the next packet that the tap received.
    pub fn received(&self) -> Option<Vec<u8>> {
        let mut packet = vec![0; 0x2_0000];
        let len = self.peer().read(&mut packet).ok()?;
        packet.truncate(len);
        (len > 0).then_some(packet)
    }
}

type Buffers = Vec<(u64, u32, bool)>;

pub struct Subject {
    pub name: &'static str,
    /// Virtio device id.
    pub id: u32,
    /// Queues.
    pub queues: u32,
    /// Bytes of the configuration space.
    pub config: usize,
    pub make: fn() -> (Box<dyn VirtioDevice>, Outside),
    /// Index of the request queue.
    pub queue: usize,
    /// True if the request is a receive buffer: no kick is wanted until a packet waits.
    pub receives: bool,
    /// Features that the request needs.
    pub needs: u64,
    /// Bytes of the configuration space that a driver may write.
    pub writable: Range<usize>,
    /// True if requests name memory that is released without being offered as a buffer.
    pub frees: bool,
    /// Prepares a request in the 16 KiB at an address. Returns its buffers.
    request: fn(&GuestMemory, u64) -> Buffers,
    /// Performs the host's part of a request.
    stimulate: fn(&Outside),
    /// Checks the answer of a length.
    check: fn(&GuestMemory, u64, u32, &Outside),
}

fn nothing(_: &Outside) {}

pub static SUBJECTS: [Subject; 10] = [
    Subject {
        name: "rng",
        id: 4,
        queues: 1,
        config: 0,
        make: || {
            let rng = Rng::new(
                Path::new("/dev/urandom"),
                &resources::RateLimiter::default(),
            )
            .unwrap();
            (Box::new(rng), Outside::default())
        },
        queue: 0,
        receives: false,
        needs: 0,
        writable: 0..0,
        frees: false,
        request: |mem, at| {
            mem.write_slice(&[0; 64], GuestAddress(at)).unwrap();
            vec![(at, 64, true)]
        },
        stimulate: nothing,
        check: |mem, at, len, _| {
            assert_eq!(len, 64);
            assert_ne!(bytes(mem, at, 64), [0; 64]);
        },
    },
    Subject {
        name: "block",
        id: 2,
        queues: 1,
        config: 60,
        make: || disk(false),
        queue: 0,
        receives: false,
        needs: 0,
        writable: 0..0,
        frees: false,
        request: read_sector,
        stimulate: nothing,
        check: sector_was_read,
    },
    Subject {
        name: "block, read-only",
        id: 2,
        queues: 1,
        config: 60,
        make: || disk(true),
        queue: 0,
        receives: false,
        needs: 0,
        writable: 0..0,
        frees: false,
        request: read_sector,
        stimulate: nothing,
        check: sector_was_read,
    },
    Subject {
        name: "net, sending",
        id: 1,
        queues: 2,
        config: 12,
        make: card,
        queue: 1,
        receives: false,
        needs: 0,
        writable: 0..0,
        frees: false,
        request: |mem, at| {
            mem.write_slice(&PACKET, GuestAddress(at)).unwrap();
            vec![(at, 12, false), (at + 12, 60, false)]
        },
        stimulate: nothing,
        check: |_, _, len, outside| {
            assert_eq!(len, 0);
            assert_eq!(outside.received().unwrap(), PACKET);
        },
    },
    Subject {
        name: "net, receiving",
        id: 1,
        queues: 2,
        config: 12,
        make: card,
        queue: 0,
        receives: true,
        needs: 0,
        writable: 0..0,
        frees: false,
        request: |_, at| vec![(at, 100, true)],
        stimulate: |outside| {
            assert_eq!(outside.peer().write(&PACKET).unwrap(), PACKET.len());
        },
        check: |mem, at, len, _| {
            assert_eq!(len, 72);
            let mut expected = PACKET;
            expected[10] = 1; // num_buffers
            assert_eq!(bytes(mem, at, 72), expected);
        },
    },
    Subject {
        name: "vsock, sending",
        id: 19,
        queues: 3,
        config: 8,
        make: vsock,
        queue: 1,
        receives: false,
        needs: 0,
        writable: 0..0,
        frees: false,
        // Requests a connection, from another port each time.
        request: |mem, at| {
            static PORT: AtomicU32 = AtomicU32::new(0);
            let port = PORT.fetch_add(1, Ordering::Relaxed);
            let mut header = [0; 44];
            (header[0], header[8]) = (3, 2); // from the guest to the host
            header[16..20].copy_from_slice(&port.to_le_bytes());
            header[20] = SERVER;
            (header[28], header[30]) = (1, 1); // stream, request
            mem.write_slice(&header, GuestAddress(at)).unwrap();
            vec![(at, 20, false), (at + 20, 24, false)]
        },
        stimulate: nothing,
        check: |_, _, len, outside| {
            assert_eq!(len, 0);
            outside.sockets().server.accept().unwrap();
        },
    },
    Subject {
        name: "vsock, receiving",
        id: 19,
        queues: 3,
        config: 8,
        make: vsock,
        queue: 0,
        receives: true,
        needs: 0,
        writable: 0..0,
        frees: false,
        request: |_, at| vec![(at, 100, true)],
        stimulate: |outside| {
            let sockets = outside.sockets();
            let mut client = UnixStream::connect(sockets.dir.path().join("v")).unwrap();
            client.write_all(b"CONNECT 77\n").unwrap();
            sockets.clients.borrow_mut().push(client);
        },
        check: |mem, at, len, _| {
            assert_eq!(len, 44);
            let header = bytes(mem, at, 44);
            assert_eq!((header[0], header[8], header[20]), (2, 3, 77));
            assert_eq!(header[28..32], [1, 0, 1, 0], "a request for a stream");
        },
    },
    Subject {
        name: "balloon, inflating",
        id: 5,
        queues: 3,
        config: 16,
        make: || {
            balloon(resources::Balloon {
                stats_polling_interval_s: 1000,
                ..resources::Balloon::default()
            })
        },
        queue: 0,
        receives: false,
        needs: 0,
        writable: 4..8,
        frees: true,
        request: |mem, at| {
            let page = u32::try_from(used_page(mem, at) / 4096).unwrap();
            mem.write_obj(page.to_le(), GuestAddress(at)).unwrap();
            vec![(at, 1, false), (at + 1, 3, false)]
        },
        stimulate: nothing,
        check: page_is_gone,
    },
    Subject {
        name: "balloon, reporting",
        id: 5,
        queues: 3,
        config: 16,
        make: || {
            balloon(resources::Balloon {
                free_page_reporting: true,
                ..resources::Balloon::default()
            })
        },
        queue: 2,
        receives: false,
        needs: 1 << 5,
        writable: 4..8,
        frees: false,
        request: |mem, at| vec![(used_page(mem, at), 4096, true)],
        stimulate: nothing,
        check: page_is_gone,
    },
    Subject {
        name: "balloon, hinting",
        id: 5,
        queues: 3,
        config: 16,
        make: || {
            balloon(resources::Balloon {
                free_page_hinting: true,
                ..resources::Balloon::default()
            })
        },
        queue: 2,
        receives: false,
        needs: 1 << 3,
        writable: 4..8,
        frees: false,
        // A page that was not requested.
        request: |mem, at| vec![(at, 4, false), (used_page(mem, at), 4096, true)],
        stimulate: nothing,
        check: |mem, at, len, _| {
            assert_eq!(len, 0);
            assert_eq!(bytes(mem, at + 0x1000, 4096), [0x5a; 4096]);
        },
    },
];

fn balloon(config: resources::Balloon) -> (Box<dyn VirtioDevice>, Outside) {
    (Box::new(Balloon::new(&config).unwrap()), Outside::default())
}

/// Returns the page of a request that the device must release.
fn used_page(mem: &GuestMemory, at: u64) -> u64 {
    let page = at + 0x1000;
    mem.write_slice(&[0x5a; 4096], GuestAddress(page)).unwrap();
    page
}

fn page_is_gone(mem: &GuestMemory, at: u64, len: u32, _: &Outside) {
    assert_eq!(len, 0);
    assert_eq!(bytes(mem, at + 0x1000, 4096), [0; 4096]);
}

/// Port of a test's server.
const SERVER: u8 = 9;

fn vsock() -> (Box<dyn VirtioDevice>, Outside) {
    let dir = tempfile::tempdir().unwrap();
    let config = resources::Vsock {
        guest_cid: 3,
        uds_path: dir.path().join("v"),
        vsock_id: None,
    };
    let device = Vsock::new(&config).unwrap();
    let server = UnixListener::bind(dir.path().join(format!("v_{SERVER}"))).unwrap();
    server.set_nonblocking(true).unwrap();
    let sockets = Sockets {
        dir,
        clients: RefCell::default(),
        server,
    };
    let outside = Outside {
        sockets: Some(sockets),
        ..Outside::default()
    };
    (Box::new(device), outside)
}

/// A packet with its header.
const PACKET: [u8; HEADER + 60] = {
    let mut packet = [0x33; HEADER + 60];
    let mut i = 0;
    while i < HEADER {
        packet[i] = 0;
        i += 1;
    }
    packet
};

/// Sectors of a test's disk; each holds its number.
pub const SECTORS: u8 = 64;

fn disk(read_only: bool) -> (Box<dyn VirtioDevice>, Outside) {
    let mut image = tempfile::NamedTempFile::new().unwrap();
    for sector in 0..SECTORS {
        image.write_all(&[sector; 512]).unwrap();
    }
    let options = BlockOptions {
        serial: "disk".into(),
        read_only,
        flush: true,
        discard: true,
        ..BlockOptions::default()
    };
    let backing = Backing::open(image.path(), read_only).unwrap();
    let outside = Outside {
        image: Some(image),
        ..Outside::default()
    };
    (Box::new(Block::new(backing, options)), outside)
}

/// A tap whose other end the test has.
pub fn tap() -> (Tap, File) {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let (ours, peer): (OwnedFd, OwnedFd) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
    (Tap::from_socket(ours), peer.into())
}

fn card() -> (Box<dyn VirtioDevice>, Outside) {
    let (tap, peer) = tap();
    let outside = Outside {
        peer: Some(peer),
        ..Outside::default()
    };
    let mac = [2, 0, 0, 0, 0, 1];
    let options = NetOptions {
        mac: Some(mac),
        mtu: Some(1500),
        ..NetOptions::default()
    };
    (Box::new(Net::new(tap, options)), outside)
}

fn read_sector(mem: &GuestMemory, at: u64) -> Buffers {
    let mut header = [0; 16];
    header[8] = 7; // type 0 (read), sector 7
    mem.write_slice(&header, GuestAddress(at)).unwrap();
    mem.write_slice(&[0xff; 513], GuestAddress(at + 0x100))
        .unwrap();
    vec![
        (at, 16, false),
        (at + 0x100, 512, true),
        (at + 0x300, 1, true),
    ]
}

fn sector_was_read(mem: &GuestMemory, at: u64, len: u32, _: &Outside) {
    assert_eq!(len, 513);
    let read = bytes(mem, at + 0x100, 513);
    assert_eq!(read[..512], [7; 512]);
    assert_eq!(read[512], 0, "status");
}

pub fn bytes(mem: &GuestMemory, at: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    mem.read_slice(&mut bytes, GuestAddress(at)).unwrap();
    bytes
}

/// Returns `state` after serialization and parsing.
pub fn through_json(state: &VirtioState) -> VirtioState {
    let text = serde_json::to_string(state).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A device under test in its guest.
pub struct Case {
    pub subject: &'static Subject,
    pub guest: FakeGuest,
    pub outside: Outside,
}

impl Case {
    pub fn new(subject: &'static Subject) -> Self {
        Self::with(subject, memory(), TestLoop::shared())
    }

    pub fn with(subject: &'static Subject, mem: GuestMemory, event_loop: TestLoop) -> Self {
        let (device, outside) = (subject.make)();
        Self {
            subject,
            guest: FakeGuest::with(device, mem, event_loop),
            outside,
        }
    }

    /// Returns a new device with the same memory and with `state`, which it must accept.
    pub fn restored(&self, state: &VirtioState) -> Self {
        let again = Self::with(self.subject, self.guest.mem.clone(), TestLoop::shared());
        lock(&again.guest.transport).restore(state).unwrap();
        again
    }

    /// Resets the device and starts it with all offered features.
    pub fn start(&self) -> Vec<Ring> {
        self.guest.start(self.guest.offered(), 16)
    }

    /// Makes request `n` of up to 4 available, without a kick.
    pub fn add(&self, rings: &mut [Ring], n: u64) {
        let buffers = (self.subject.request)(&self.guest.mem, DATA + n * 0x4000);
        rings[self.subject.queue].add(&self.guest.mem, &buffers);
    }

    /// Performs the host's part of one request.
    pub fn stimulate(&self) {
        (self.subject.stimulate)(&self.outside);
    }

    pub fn kick(&self) {
        self.guest.kick(u32::try_from(self.subject.queue).unwrap());
    }

    /// Waits for the answer to request `n`.
    pub fn answered(&self, rings: &mut [Ring], n: u64) {
        let (_, len) = self.guest.wait_used(&mut rings[self.subject.queue]);
        (self.subject.check)(&self.guest.mem, DATA + n * 0x4000, len, &self.outside);
    }

    /// Makes a request that must be served.
    pub fn request(&self, rings: &mut [Ring]) {
        self.add(rings, 0);
        self.stimulate();
        self.kick();
        self.answered(rings, 0);
    }

    /// Checks, after any guest behaviour, that the loop turns and that the device serves after a reset.
    pub fn recovers(&self) {
        self.guest.settle();
        self.guest.write(0x70, 0);
        assert_eq!(self.guest.read(0x70), 0, "{}: reset", self.subject.name);
        if let Some(image) = &self.outside.image {
            image.as_file().write_all_at(&[7; 512], 7 * 512).unwrap();
        }
        // Earlier packets in both directions.
        self.outside.empty();
        let mut rings = self.start();
        if self.subject.name == "net, receiving" {
            self.empty_tap(&mut rings[0]);
        }
        self.request(&mut rings);
        let status = self.guest.read(0x70);
        assert_eq!(status, 15, "{}: status", self.subject.name);
    }

    /// Drains packets of earlier stimuli.
    fn empty_tap(&self, rx: &mut Ring) {
        let mut last = PACKET;
        last[12] = 0x44;
        self.outside.peer().write_all(&last).unwrap();
        loop {
            rx.add(&self.guest.mem, &[(DATA, 0x1000, true)]);
            self.guest.kick(0);
            self.guest.wait_used(rx);
            if bytes(&self.guest.mem, DATA + 12, 1) == [0x44] {
                return;
            }
        }
    }

    /// Pauses the transport.
    pub fn pause(&self) {
        lock(&self.guest.transport).pause();
    }

    pub fn resume(&self) {
        lock(&self.guest.transport).resume();
    }
}
