//! Guest memory whose pages another process gives as the guest touches them (userfaultfd(2)): the one that listens at
//! a Unix socket. It is told where the memory is, and gets the descriptor by which it serves faults, in one
//! message; from then on a touch of a page that it does not give waits for it, without an end.
//!
//! All of this is done before the process is confined.

use crate::machine::memory::layers::Layer;
use crate::machine::memory::mapping::{self, MemoryError};
use devices::GuestMemory;
use resources::{HugePages, MachineConfig};
use serde::Serialize;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use vm_memory::{GuestMemoryBackend as _, GuestMemoryRegion as _};
use vmm_sys_util::ioctl::{ioctl_with_mut_ref, ioctl_with_val};
use vmm_sys_util::sock_ctrl_msg::ScmSocket as _;

// linux/userfaultfd.h.
const DEVICE: &str = "/dev/userfaultfd";
const USERFAULTFD_IOC_NEW: libc::c_ulong = 0xaa00;
const UFFDIO_API: libc::c_ulong = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::c_ulong = 0xc020_aa00;
const UFFD_API: u64 = 0xaa;
/// The handler hears of pages that the balloon gave back, and does not give them again.
const UFFD_FEATURE_EVENT_REMOVE: u64 = 1 << 3;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1 << 0;

#[repr(C)]
struct UffdioApi {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
struct UffdioRegister {
    start: u64,
    len: u64,
    mode: u64,
    ioctls: u64,
}

/// Why no other process gives the memory. Each text names what can be done.
#[derive(Debug, thiserror::Error)]
pub enum UffdError {
    /// It cannot be mapped.
    #[error(transparent)]
    Map(#[from] MemoryError),
    /// The kernel does not let this user.
    #[error(
        "mem_backend: Uffd: this user may not have page faults served: let it open {DEVICE}, which the \
         jailer puts into jails where the host has it, or write 1 to /proc/sys/vm/unprivileged_userfaultfd"
    )]
    NotPermitted(#[source] io::Error),
    /// The kernel cannot.
    #[error(
        "mem_backend: Uffd: the host's kernel cannot have page faults served (CONFIG_USERFAULTFD)"
    )]
    NotSupported(#[source] io::Error),
    /// The kernel refuses this memory.
    #[error("mem_backend: Uffd: the kernel does not have faults of guest memory served")]
    Register(#[source] io::Error),
    /// Nobody listens.
    #[error("mem_backend: Uffd: cannot connect to {}: is the page fault handler running?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The handler does not take it.
    #[error("mem_backend: Uffd: cannot send the memory's layout to {}", path.display())]
    Send {
        /// The socket.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A part of guest memory as handlers are told of it.
#[derive(Debug, Serialize)]
struct Mapping {
    base_host_virt_addr: u64,
    size: u64,
    /// Where it is in the memory file.
    offset: u64,
    page_size: u64,
    /// In bytes all the same: handlers depend on it.
    page_size_kib: u64,
}

/// The memory of `config`, given by the process that listens at `socket`. The layer stands for it: every page may
/// hold something.
///
/// # Errors
/// [`UffdError`].
pub(super) fn map(
    config: &MachineConfig,
    socket: &Path,
) -> Result<(GuestMemory, Layer), UffdError> {
    let memory = mapping::map(config)?;
    let page_size = match config.huge_pages {
        HugePages::Hugetlb2M => 2 << 20,
        HugePages::None | HugePages::Transparent => 4096,
    };
    let faults = open()?;
    let mut offset = 0;
    let mut mappings = Vec::new();
    for region in memory.iter() {
        let mapping = Mapping {
            base_host_virt_addr: region.as_ptr() as u64,
            size: region.len(),
            offset,
            page_size,
            page_size_kib: page_size,
        };
        offset += mapping.size;
        register(&faults, &mapping).map_err(UffdError::Register)?;
        mappings.push(mapping);
    }
    let path = socket;
    let stream = UnixStream::connect(path).map_err(|source| UffdError::Connect {
        path: path.into(),
        source,
    })?;
    let sent = serde_json::to_vec(&mappings)
        .map_err(io::Error::from)
        .and_then(|text| {
            let sent = stream.send_with_fd(text.as_slice(), faults.as_raw_fd());
            match sent.map_err(io::Error::from)? {
                len if len == text.len() => Ok(()),
                _ => Err(io::ErrorKind::WriteZero.into()),
            }
        });
    sent.map_err(|source| UffdError::Send {
        path: path.into(),
        source,
    })?;
    // Kept as long as the memory: if the handler ended, the last who closes it would give the guest zeroes.
    let layer = Layer {
        file: Arc::new(faults),
        runs: Some(vec![(0, offset)]),
    };
    Ok((memory, layer))
}

/// A descriptor for faults of the kernel's own as well, in which guests run; by the device if it can be opened.
fn open() -> Result<File, UffdError> {
    let by_device = File::options().read(true).write(true).open(DEVICE);
    let faults = by_device.and_then(|device| new_by_device(&device));
    let faults = faults.or_else(|_| new_by_call());
    let faults = faults.map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => UffdError::NotPermitted(e),
        _ => UffdError::NotSupported(e),
    })?;
    let api = negotiate(&faults, UFFD_FEATURE_EVENT_REMOVE);
    let api = api.or_else(|_| negotiate(&faults, 0));
    api.map_err(UffdError::NotSupported)?;
    Ok(faults)
}

const FLAGS: libc::c_int = libc::O_CLOEXEC | libc::O_NONBLOCK;

#[expect(unsafe_code, reason = "ioctl is an unsafe function")]
fn new_by_device(device: &File) -> io::Result<File> {
    let flags = libc::c_ulong::try_from(FLAGS).map_err(io::Error::other)?;
    // SAFETY: the request takes a number and answers a new descriptor or an error.
    unsafe { owned(ioctl_with_val(device, USERFAULTFD_IOC_NEW, flags)) }
}

#[expect(unsafe_code, reason = "the C library has no such function")]
fn new_by_call() -> io::Result<File> {
    // SAFETY: the call takes a number and answers a new descriptor or an error.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) };
    let fd = libc::c_int::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: as above.
    unsafe { owned(fd) }
}

/// # Safety
/// `fd` is a new descriptor, or negative.
#[expect(unsafe_code, reason = "a descriptor that the kernel just gave")]
unsafe fn owned(fd: libc::c_int) -> io::Result<File> {
    match fd {
        // SAFETY: the caller has it from the kernel and nobody else knows of it.
        0.. => Ok(unsafe { File::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "ioctl is an unsafe function")]
fn negotiate(faults: &File, features: u64) -> io::Result<()> {
    let mut api = UffdioApi {
        api: UFFD_API,
        features,
        ioctls: 0,
    };
    // SAFETY: the kernel reads and writes a `struct uffdio_api`.
    match unsafe { ioctl_with_mut_ref(faults, UFFDIO_API, &mut api) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(unsafe_code, reason = "ioctl is an unsafe function")]
fn register(faults: &File, mapping: &Mapping) -> io::Result<()> {
    let mut register = UffdioRegister {
        start: mapping.base_host_virt_addr,
        len: mapping.size,
        mode: UFFDIO_REGISTER_MODE_MISSING,
        ioctls: 0,
    };
    // SAFETY: the kernel reads and writes a `struct uffdio_register`. The range is a mapping of anonymous memory of
    // which no page was touched: whoever touches one waits until it is given.
    match unsafe { ioctl_with_mut_ref(faults, UFFDIO_REGISTER, &mut register) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
#[path = "uffd_test.rs"]
mod uffd_test;
