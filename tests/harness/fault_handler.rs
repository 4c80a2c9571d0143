//! A page fault handler as Firecracker's users write them: it listens at a socket, receives the memory layout and a
//! userfaultfd(2), and copies pages from a memory file. Here it is a thread of the test.

#![allow(dead_code, reason = "each suite uses a part of it")]

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use vmm_sys_util::ioctl::ioctl_with_mut_ref;
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

// linux/userfaultfd.h.
const UFFDIO_COPY: libc::c_ulong = 0xc028_aa03;
const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_REMOVE: u8 = 0x15;

#[repr(C)]
struct UffdioCopy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copy: i64,
}

/// The work of a handler.
#[derive(Debug)]
pub struct Served {
    /// The monitor's message.
    pub layout: Value,
    /// Copied pages, as offsets in the file.
    pub given: BTreeSet<u64>,
    /// Pages that the monitor removed.
    pub removed: u64,
}

/// A running handler.
pub struct Handler {
    thread: Option<JoinHandle<Served>>,
    stop: Arc<AtomicBool>,
}

impl Handler {
    /// Serves the pages of `memory` to the monitor that connects to `socket`.
    pub fn start(socket: &Path, memory: &Path) -> Self {
        let listener = UnixListener::bind(socket).unwrap();
        let stop = Arc::<AtomicBool>::default();
        let (stopped, memory) = (stop.clone(), memory.to_owned());
        let thread = std::thread::spawn(move || serve(&listener, &memory, &stopped));
        Self {
            thread: Some(thread),
            stop,
        }
    }

    /// Ends the handler after its monitor has ended.
    pub fn finish(mut self) -> Served {
        self.stop.store(true, Ordering::Release);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

fn serve(listener: &UnixListener, memory: &PathBuf, stop: &AtomicBool) -> Served {
    let (stream, _) = listener.accept().unwrap();
    let mut text = vec![0; 4096];
    let (len, faults) = stream.recv_with_fd(&mut text).unwrap();
    let mut faults = faults.expect("a descriptor");
    let layout: Value = serde_json::from_slice(&text[..len]).unwrap();
    let memory = File::open(memory).unwrap();
    let mut served = Served {
        layout,
        given: BTreeSet::new(),
        removed: 0,
    };
    let mut gone = BTreeSet::new();
    while !stop.load(Ordering::Acquire) {
        let mut ready = [PollFd::new(faults.as_fd(), PollFlags::POLLIN)];
        poll(&mut ready, PollTimeout::from(50_u8)).unwrap();
        let mut message = [0; 32];
        match faults.read(&mut message) {
            Ok(32) => {}
            // The monitor has ended.
            Ok(_) => break,
            Err(_) => continue,
        }
        let number = |at: usize| u64::from_le_bytes(message[at..at + 8].try_into().unwrap());
        match message[0] {
            EVENT_PAGEFAULT => served.give(&faults, &memory, &gone, number(16)),
            EVENT_REMOVE => {
                let pages = (number(8)..number(16)).step_by(4096);
                served.removed += pages.clone().count() as u64;
                gone.extend(pages);
            }
            other => panic!("event {other:#x}"),
        }
    }
    served
}

impl Served {
    #[expect(unsafe_code, reason = "ioctl is an unsafe function")]
    fn give(&mut self, faults: &File, memory: &File, gone: &BTreeSet<u64>, address: u64) {
        let number = |region: &Value, key: &str| region[key].as_u64().unwrap();
        let regions = self.layout.as_array().unwrap().iter();
        let region = regions.clone().find(|region| {
            let start = number(region, "base_host_virt_addr");
            (start..start + number(region, "size")).contains(&address)
        });
        let region = region.expect("an address of the guest's");
        let len = number(region, "page_size");
        let address = address / len * len;
        let offset = address - number(region, "base_host_virt_addr") + number(region, "offset");
        let mut page = vec![0; usize::try_from(len).unwrap()];
        if !gone.contains(&address) {
            memory.read_exact_at(&mut page, offset).unwrap();
        }
        let mut copy = UffdioCopy {
            dst: address,
            src: page.as_ptr() as u64,
            len,
            mode: 0,
            copy: 0,
        };
        loop {
            // SAFETY: the kernel reads `len` bytes of the page and copies them to memory that the monitor has not mapped yet.
            let done = unsafe { ioctl_with_mut_ref(faults, UFFDIO_COPY, &mut copy) };
            match std::io::Error::last_os_error().raw_os_error() {
                Some(libc::EAGAIN) if done != 0 => {}
                _ => break,
            }
        }
        self.given.insert(offset);
    }
}
